package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func small(t *testing.T, arguments ...string) (*store, *httptest.Server) {
	t.Helper()
	o, err := parseOptions(append([]string{"-live", "1MiB", "-object", "4KiB"}, arguments...))
	if err != nil {
		t.Fatal(err)
	}
	sessions := newStore(o)
	server := httptest.NewServer(newHandler(o, sessions))
	t.Cleanup(server.Close)
	return sessions, server
}

func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func TestSessionsAreAFunctionOfTheSeed(t *testing.T) {
	when := time.Unix(1, 0)
	if !reflect.DeepEqual(makeSession(1, 7, 4096, when), makeSession(1, 7, 4096, when)) {
		t.Error("the same seed gave two sessions")
	}
	if reflect.DeepEqual(makeSession(1, 7, 4096, when), makeSession(2, 7, 4096, when)) {
		t.Error("another seed gave the same session")
	}
}

func TestTheAverageSizeIsTheOneAskedFor(t *testing.T) {
	total := 0
	for number := 0; number < 500; number++ {
		encoded, _ := json.Marshal(makeSession(1, number, 4096, time.Unix(1, 0)))
		total += len(encoded)
	}
	if average := total / 500; average < 3300 || average > 4900 {
		t.Errorf("average %d bytes, want about 4096", average)
	}
}

func TestJSONKeepsASession(t *testing.T) {
	session := makeSession(3, 4, 4096, time.Unix(9, 0).UTC())
	if got := throughJSON(session); !reflect.DeepEqual(*got, session) {
		t.Errorf("got %+v", got)
	}
}

func TestReadyOnlyWhenLoaded(t *testing.T) {
	sessions, server := small(t)
	if status, _ := ask(t, "GET", server.URL+"/healthz", ""); status != 503 {
		t.Errorf("status %d before loading", status)
	}
	sessions.load(context.Background())
	status, body := ask(t, "GET", server.URL+"/healthz", "")
	if status != 200 || !strings.Contains(body, `"sessions":256`) {
		t.Errorf("status %d, %s", status, body)
	}
}

func TestTheChecksumIsAFunctionOfTheSeed(t *testing.T) {
	checksums := map[string]bool{}
	for _, seed := range []string{"1", "1", "2"} {
		sessions, _ := small(t, "-seed", seed)
		sessions.load(context.Background())
		checksums[sessions.checksum] = true
	}
	if len(checksums) != 2 {
		t.Errorf("%d checksums of two seeds", len(checksums))
	}
}

func TestPutThenGet(t *testing.T) {
	_, server := small(t)
	url := server.URL + "/sessions/s1"
	if status, _ := ask(t, "GET", url, ""); status != 404 {
		t.Errorf("status %d for an unknown session", status)
	}
	if status, body := ask(t, "PUT", url, `{"id": "s1", "user": "Ann"}`); status != 204 {
		t.Fatalf("status %d: %s", status, body)
	}
	if status, body := ask(t, "GET", url, ""); status != 200 || !strings.Contains(body, "Ann") {
		t.Errorf("status %d: %s", status, body)
	}
}

func TestPutRefusesWhatIsNoSession(t *testing.T) {
	_, server := small(t)
	for _, body := range []string{"", "{", `{"id": "s2"}`, `[]`} {
		if status, _ := ask(t, "PUT", server.URL+"/sessions/s1", body); status != 400 {
			t.Errorf("status %d for %q", status, body)
		}
	}
}

func TestExpiredSessionsAreGoneAndThenRenewed(t *testing.T) {
	sessions, server := small(t)
	session := throughJSON(makeSession(1, 1, 4096, time.Now().Add(-time.Second)))
	sessions.put(session)
	url := server.URL + "/sessions/" + session.ID
	if status, _ := ask(t, "GET", url, ""); status != 404 {
		t.Errorf("status %d for an expired session", status)
	}
	sessions.renew()
	if status, _ := ask(t, "GET", url, ""); status != 200 {
		t.Errorf("status %d after renewal", status)
	}
}

func TestReportMakesTheGarbageAskedFor(t *testing.T) {
	sessions, server := small(t, "-garbage", "100KiB")
	sessions.load(context.Background())
	_, body := ask(t, "GET", server.URL+"/report", "")
	var summary struct{ Sessions, Bytes int }
	if err := json.Unmarshal([]byte(body), &summary); err != nil {
		t.Fatal(err)
	}
	if summary.Bytes < 100<<10 || summary.Bytes > 120<<10 || summary.Sessions < 10 {
		t.Errorf("%+v", summary)
	}
}

func TestMetricsAreOffUnlessAskedFor(t *testing.T) {
	_, server := small(t)
	if status, _ := ask(t, "GET", server.URL+"/metrics", ""); status != 404 {
		t.Errorf("status %d", status)
	}
	_, server = small(t, "-metrics", "-pprof")
	if _, body := ask(t, "GET", server.URL+"/metrics", ""); !strings.Contains(body, "go_gc_gogc_percent 100") {
		t.Error(body)
	}
	if status, _ := ask(t, "GET", server.URL+"/debug/pprof/heap?debug=1", ""); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestBadOptionsAreErrors(t *testing.T) {
	for _, arguments := range [][]string{
		{"-live", "1.5GiB"}, {"-live", "-1"}, {"-object", "1"}, {"-ttl", "0s"}, {"-unknown"}, {"x"},
	} {
		if _, err := parseOptions(arguments); err == nil {
			t.Errorf("%v was accepted", arguments)
		}
	}
}
