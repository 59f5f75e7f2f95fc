package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client calls the API of one server.
type Client struct {
	url  string
	key  string
	http *http.Client
}

// NewClient makes a client of the server at base, such as http://127.0.0.1:8003,
// with its management key.
func NewClient(base, key string) *Client {
	return &Client{strings.TrimSuffix(base, "/"), key, &http.Client{Timeout: time.Minute}}
}

// Keys are an endpoint's keys.
func (c *Client) Keys(ctx context.Context, endpoint string) (k Keys, err error) {
	err = c.post(ctx, endpoint, "listkeys", nil, &k)
	return k, err
}

// SetKey replaces a key, and returns both.
func (c *Client) SetKey(ctx context.Context, endpoint string, r KeyRequest) (k Keys, err error) {
	err = c.post(ctx, endpoint, "regenerateKeys", r, &k)
	return k, err
}

// Token is a new token for an endpoint.
func (c *Client) Token(ctx context.Context, endpoint string, r TokenRequest) (t Token, err error) {
	err = c.post(ctx, endpoint, "token", r, &t)
	return t, err
}

// post runs one operation. A refusal is an *Error.
func (c *Client) post(ctx context.Context, endpoint, operation string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/services/"+url.PathEscape(endpoint)+"/"+operation, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w; is the server running, and --url its management address?", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		return json.Unmarshal(answer, into)
	}
	e := &Error{}
	if json.Unmarshal(answer, e) != nil || e.Message == "" {
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	return e
}
