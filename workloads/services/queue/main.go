// Queue answers each request when one of its servers has served it: c servers, one queue, first come
// first served, exponential service times. Under Poisson arrivals that is the queue M/M/c, whose
// waiting times a formula tells: what measures a service's capacity can be held against the truth.
//
// Nothing is computed in a service time, it only passes: c may be more than there are cores.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	addr    string
	servers int
	service time.Duration
	waiting int
	seed    uint64
}

func parseOptions(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("queue", flag.ContinueOnError)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8080", "where to listen")
	flags.IntVar(&o.servers, "servers", 4, "how many requests are served at one time")
	flags.DurationVar(&o.service, "service", 20*time.Millisecond, "mean service time")
	flags.IntVar(&o.waiting, "waiting", -1, "how many may wait before 503 is answered; -1: no bound")
	flags.Uint64Var(&o.seed, "seed", 0, "what service times are drawn from; 0: another each time")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.servers < 1 || o.service <= 0 || o.waiting < -1 {
		return o, errors.New("need -servers >= 1, -service > 0 and -waiting >= -1")
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "queue:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done.
func run(ctx context.Context, o options) error {
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	log.Printf("%d servers, %v mean service time, seed %d", o.servers, o.service, o.seed)
	server := &http.Server{
		Addr:              o.addr,
		Handler:           newHandler(newQueue(o)),
		ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Close()
	}
}

func newHandler(q *queue) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		done, ok := q.join(time.Now())
		if !ok {
			http.Error(w, "too many wait", http.StatusServiceUnavailable)
			return
		}
		// A client that gives up is served all the same: its place in the queue was given.
		time.Sleep(time.Until(done))
		_, _ = w.Write([]byte("served\n")) // the client went away: nobody is left to tell
	})
	return mux
}
