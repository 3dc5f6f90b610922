package main

import (
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sort"
	"testing"
	"time"
)

// timesAt are the times in the system of Poisson arrivals, by a clock of our own.
func timesAt(o options, perSecond float64, count int) []float64 {
	q, now := newQueue(o), time.Unix(0, 0)
	random := rand.New(rand.NewPCG(5, 6))
	found := make([]float64, 0, count)
	for range count {
		now = now.Add(time.Duration(random.ExpFloat64() / perSecond * 1e9))
		if done, ok := q.join(now); ok {
			found = append(found, done.Sub(now).Seconds())
		}
	}
	sort.Float64s(found)
	return found
}

func near(t *testing.T, what string, got, want, share float64) {
	t.Helper()
	if math.Abs(got/want-1) > share {
		t.Errorf("%s: got %.4g, want %.4g", what, got, want)
	}
}

func TestOneServerIsTheFormula(t *testing.T) {
	// M/M/1: the time in the system is exponential with rate mu - lambda = 50 - 30.
	times := timesAt(options{servers: 1, service: 20 * time.Millisecond, waiting: -1, seed: 1}, 30, 400_000)
	near(t, "median", times[len(times)/2], math.Ln2/20, 0.05)
	near(t, "p99", times[len(times)*99/100], math.Log(100)/20, 0.1)
}

func TestManyServersWaitAsErlangSays(t *testing.T) {
	// c = 4, a = 3: Erlang's C is 0.50943, the mean wait C / (c mu - lambda).
	times := timesAt(options{servers: 4, service: 20 * time.Millisecond, waiting: -1, seed: 2}, 150, 400_000)
	sum := 0.0
	for _, seconds := range times {
		sum += seconds
	}
	near(t, "mean", sum/float64(len(times)), 0.02+0.50943/50, 0.05)
}

func TestABoundRefusesAsErlangSays(t *testing.T) {
	// Nobody may wait: Erlang's B with c = 2 and a = 2 is 0.4.
	times := timesAt(options{servers: 2, service: 20 * time.Millisecond, waiting: 0, seed: 3}, 100, 400_000)
	near(t, "refused", 1-float64(len(times))/400_000, 0.4, 0.02)
}

func TestAQueueThatIsNotBoundedForgetsWhoWasServed(t *testing.T) {
	q, now := newQueue(options{servers: 1, service: time.Millisecond, waiting: -1, seed: 1}), time.Unix(0, 0)
	for range 100_000 {
		now = now.Add(2 * time.Millisecond)
		q.join(now)
	}
	if len(q.begins) > 1000 {
		t.Errorf("%d waiting requests are remembered", len(q.begins))
	}
}

func TestTheSameSeedServesTheSame(t *testing.T) {
	o := options{servers: 3, service: time.Millisecond, waiting: -1, seed: 7}
	first, again := timesAt(o, 2000, 1000), timesAt(o, 2000, 1000)
	for n := range first {
		if first[n] != again[n] {
			t.Fatal("another service time")
		}
	}
}

func TestItAnswersWhenServedAndRefusesWhenFull(t *testing.T) {
	q := newQueue(options{servers: 1, service: time.Hour, waiting: 0, seed: 1})
	q.join(time.Now())
	answer := httptest.NewRecorder()
	newHandler(q).ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("full: %d", answer.Code)
	}
	answer = httptest.NewRecorder()
	quick := newQueue(options{servers: 1, service: time.Microsecond, waiting: -1, seed: 1})
	newHandler(quick).ServeHTTP(answer, httptest.NewRequest("GET", "/", nil))
	if answer.Code != http.StatusOK || answer.Body.String() != "served\n" {
		t.Errorf("free: %d %q", answer.Code, answer.Body)
	}
}

func TestWrongArgumentsAreTold(t *testing.T) {
	for _, arguments := range [][]string{
		{"-servers", "0"}, {"-service", "0s"}, {"-waiting", "-2"}, {"more"},
	} {
		if _, err := parseOptions(arguments); err == nil {
			t.Errorf("%v is accepted", arguments)
		}
	}
}
