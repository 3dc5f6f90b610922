package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// conversation is a connection whose client has said everything at once.
type conversation struct {
	io.Reader
	said bytes.Buffer
}

func (c *conversation) Write(data []byte) (int, error) { return c.said.Write(data) }

func TestRequestsThatComeTogetherAreAllAnswered(t *testing.T) {
	c := &conversation{Reader: strings.NewReader(
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n" +
			"POST /x HTTP/1.1\r\nHost: a\r\nCONTENT-length: 4\r\n\r\nbody" +
			"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" +
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" +
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n")}
	if err := answerAll(c); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(&c.said)
	for _, method := range []string{"GET", "POST", "HEAD", "GET"} {
		response, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		body, _ := io.ReadAll(response.Body)
		if want := map[bool]string{true: "", false: "ok\n"}[method == "HEAD"]; string(body) != want {
			t.Errorf("%s: body %q, want %q", method, body, want)
		}
	}
	if in.Buffered() > 0 {
		t.Error("it went on after the client had asked it to close")
	}
}

func TestWhatIsNoRequestEndsTheConnection(t *testing.T) {
	for _, said := range []string{
		"nonsense\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nA: " + strings.Repeat("b", bufferBytes),
	} {
		c := &conversation{Reader: strings.NewReader(said)}
		if err := answerAll(c); err == nil || c.said.Len() > 0 {
			t.Errorf("%.40q was answered with %q", said, c.said.String())
		}
	}
}

func TestAnOrdinaryClientIsServed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go serve(listener)
	for range 3 {
		response, err := http.Get("http://" + listener.Addr().String() + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != 200 || string(body) != "ok\n" {
			t.Errorf("%d %q", response.StatusCode, body)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	request := []byte("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n\r\n")
	in := bufio.NewReader(&endless{text: request})
	b.ReportAllocs()
	for range b.N {
		if _, err := readRequest(in); err != nil {
			b.Fatal(err)
		}
	}
}

// endless says the same again and again.
type endless struct {
	text []byte
	left []byte
}

func (e *endless) Read(into []byte) (int, error) {
	if len(e.left) == 0 {
		e.left = e.text
	}
	n := copy(into, e.left)
	e.left = e.left[n:]
	return n, nil
}
