package upstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"sluice.dev/scorer"
)

// answer fills in what came of a request: an answer, or the error that ended its
// connection.
func (c *conn) answer(resp *scorer.Response, err error, untouched bool) {
	switch {
	case untouched:
		resp.Fail(scorer.Unavailable, "the model's server closed the connection before the request was sent; try again")
		resp.NotStarted = true
	case err == errLost:
		resp.Fail(scorer.ModelFailed, "the model's server closed the connection before it answered; whether the work was done is not known")
	case errors.Is(err, errAnswer):
		resp.Fail(scorer.ModelFailed, "the model's server gave an answer that is "+err.Error())
	case err != nil:
		resp.Fail(scorer.ModelFailed, "the model's server broke off its answer; whether the work was done is not known")
	default:
		c.server.seen.Add(1)
		c.pass(resp)
	}
}

// pass passes an answer on. What the server says of its own failure is the
// gateway's to tell, since clients hold 500 against whom they call.
func (c *conn) pass(resp *scorer.Response) {
	switch status := c.head.status; {
	case status < 300:
		resp.Status = scorer.OK
	case status < 400:
		resp.Fail(scorer.ModelFailed, fmt.Sprintf("the model's server answered %d, a redirection; correct its URL", status))
		return
	case status == http.StatusUnauthorized || status == http.StatusProxyAuthRequired: // clients' credentials do not go there
		resp.Fail(scorer.ModelFailed, fmt.Sprintf("the model's server answered %d: it does not take our credential; correct the headers that it gets", status))
		return
	case status == http.StatusServiceUnavailable:
		resp.Fail(scorer.Overloaded, "the model's server is overloaded: "+said(c.body))
		return
	case status >= 500:
		resp.Fail(scorer.ModelFailed, fmt.Sprintf("the model's server answered %d: %s", status, said(c.body)))
		return
	default:
		resp.Status = refusal(status)
	}
	resp.Code, resp.HeadLength, resp.Device = c.head.status, c.head.headLength, c.head.device
	resp.ContentType = append(resp.ContentType[:0], c.kind...)
	resp.Body, c.body = c.body, resp.Body[:0]
	if cap(c.body) > maxKept {
		c.body = nil
	}
}

// refusal is what a status of 400 to 499 counts as.
func refusal(status int) scorer.Status {
	switch status {
	case http.StatusNotFound:
		return scorer.NotFound
	case http.StatusRequestEntityTooLarge:
		return scorer.TooLarge
	case http.StatusTooManyRequests:
		return scorer.Exhausted
	}
	return scorer.InvalidArgument
}

// said is what an error's body says, its first line in plain characters: the message of
// Azure ML's and of the Open Inference Protocol's errors, or the text.
func said(body []byte) string {
	var known struct{ Error, Message string }
	text := string(body[:min(len(body), 4<<10)])
	if json.Unmarshal(body, &known) == nil && known.Error+known.Message != "" {
		text = known.Error + known.Message
	}
	return short(text)
}

// short makes text fit to stand in a message: its first line, since traces of stacks
// have paths.
func short(text string) string {
	const most = 200 // bytes
	text = strings.TrimSpace(text)
	if end := strings.IndexAny(text, "\r\n"); end >= 0 {
		text = text[:end]
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	if text == "" {
		return "and nothing else"
	}
	return text
}
