package httpapi

import "testing"

func TestV1(t *testing.T) {
	address := listen(t, Config{})
	f := func(method, path, body string, status int, want string) {
		t.Helper()
		got, answer, _ := asks(t, method, "http://"+address+path, body)
		if got != status || answer != want {
			t.Errorf("%s %s: answered\n%d %s\nwant\n%d %s", method, path, got, answer, status, want)
		}
	}
	f("GET", "/v1/models", "", 200, `{"models":["e"]}`)
	status := `{"model_version_status":[{"state":"AVAILABLE","status":{"error_code":"OK","error_message":""},"version":"v"}],"name":"e","ready":true}`
	f("GET", "/v1/models/e", "", 200, status)
	f("GET", "/v1/models/e/versions/v", "", 200, status)
	f("GET", "/v1/models/nope", "", 404, `{"error":"Request for unknown model: 'nope' is not found"}`)
	f("GET", "/v1/models/e/metadata", "", 200, `{"metadata":{"signature_def":{"signature_def":{"serving_default":{"inputs":{},"method_name":"tensorflow/serving/predict","outputs":{}}}}},`+
		`"model_spec":{"name":"e","signature_name":"","version":""}}`)
	f("POST", "/v1/models/e:predict", "abc", 200, "abc")
	f("POST", "/v1/models/e/versions/v:predict", "abc", 200, "abc")
	f("POST", "/v1/models/e/versions/9:predict", "abc", 404, `{"error":"Request for unknown model: 'e' version 9 is not found"}`)
	f("GET", "/v1/models/e:predict", "", 405, `{"error":"Method Not Allowed"}`)
	f("POST", "/v1/models/e:classify", "abc", 200, "abc")
	f("POST", "/v1/models/e/versions/v:regress", "abc", 200, "abc")
	f("GET", "/v1/models/e:classify", "", 405, `{"error":"Method Not Allowed"}`)
	f("POST", "/v1/models/e:explain", "abc", 501, `{"error":"explain is not offered; use predict"}`)
	f("GET", "/", "", 200, `{"status":"alive"}`)
	f("POST", "/", "abc", 405, `{"error":"Method Not Allowed"}`)
	f("POST", "/v1/models/e:guess", "abc", 404, `{"error":"Not Found"}`)
	f("POST", "/v1/models/e/metadata:predict", "abc", 404, `{"error":"Not Found"}`)
	f("GET", "/v1/modelsx", "", 404, `{"error":"Not Found"}`)
}
