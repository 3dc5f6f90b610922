// Sessioncache keeps web sessions in memory and serves them as JSON: an ordinary Go service with a
// large live heap and much short-lived garbage, to be measured under different configurations.
//
// It changes nothing about the garbage collector by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	addr    string
	live    byteSize
	object  byteSize
	garbage byteSize
	ttl     time.Duration
	seed    uint64
	pprof   bool
	metrics bool
}

func parseOptions(arguments []string) (options, error) {
	o := options{live: 64 << 20, object: 4 << 10, garbage: 256 << 10}
	flags := flag.NewFlagSet("sessioncache", flag.ContinueOnError)
	flags.StringVar(&o.addr, "addr", "127.0.0.1:8080", "where to listen")
	flags.Var(&o.live, "live", "size of the sessions kept in memory, such as 64MiB")
	flags.Var(&o.object, "object", "average size of one session")
	flags.Var(&o.garbage, "garbage", "short-lived bytes that one report makes")
	flags.DurationVar(&o.ttl, "ttl", 10*time.Minute, "how long a session lives")
	flags.Uint64Var(&o.seed, "seed", 1, "what all contents are made from")
	flags.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof")
	flags.BoolVar(&o.metrics, "metrics", false, "serve /metrics in Prometheus' text format")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.object < minimalObject || o.live < o.object || o.ttl <= 0 {
		return o, fmt.Errorf("need -object >= %d, -live >= -object and -ttl > 0", minimalObject)
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "sessioncache:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx is done; the sessions are loaded meanwhile.
func run(ctx context.Context, o options) error {
	sessions := newStore(o)
	server := &http.Server{
		Addr:              o.addr,
		Handler:           newHandler(o, sessions),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	go func() {
		sessions.load(ctx)
		log.Printf("%d sessions loaded, SHA-256 %s", sessions.count, sessions.checksum)
		sessions.renewForEver(ctx)
	}()
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
