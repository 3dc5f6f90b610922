// Null answers every HTTP/1.1 request with the same few bytes, as cheaply as one goroutine for each
// connection can: what is measured against it is the load generator, not the service.
//
// It is no web server: it understands just enough to find where a request ends.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

const (
	bufferBytes = 16 << 10
	bodyMax     = 64 << 20
)

var (
	answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n")
	head   = answer[:len(answer)-len("ok\n")]

	errLine = errors.New("a header that is too long, or not HTTP/1.1")
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "where to listen")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "null:", err)
		os.Exit(2)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		listener.Close()
	}()
	if err := serve(listener); err != nil && !errors.Is(err, net.ErrClosed) {
		log.Fatal(err)
	}
}

// serve answers on every connection until the listener is closed.
func serve(listener net.Listener) error {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			// A connection that ends, or is no HTTP, is its client's business.
			_ = answerAll(connection)
		}()
	}
}

// answerAll answers one request after the other; what came together is answered together.
func answerAll(connection io.ReadWriter) error {
	in := bufio.NewReaderSize(connection, bufferBytes)
	out := bufio.NewWriterSize(connection, bufferBytes)
	for {
		request, err := readRequest(in)
		if err != nil {
			return err
		}
		if request.isHead {
			out.Write(head)
		} else {
			out.Write(answer)
		}
		if in.Buffered() == 0 || request.last {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		if request.last {
			return nil
		}
	}
}

type request struct {
	isHead bool
	last   bool // the client wants the connection closed
}

// readRequest reads a request with its body.
func readRequest(in *bufio.Reader) (request, error) {
	var found request
	first, err := line(in)
	if err != nil {
		return found, err
	}
	if !bytes.HasSuffix(first, []byte(" HTTP/1.1")) {
		return found, errLine
	}
	found.isHead = bytes.HasPrefix(first, []byte("HEAD "))
	bodyBytes := 0
	for {
		field, err := line(in)
		if err != nil {
			return found, err
		}
		if len(field) == 0 {
			break
		}
		name, value, _ := bytes.Cut(field, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case named(name, "content-length"):
			bodyBytes, err = strconv.Atoi(string(value))
			if err != nil || bodyBytes < 0 || bodyBytes > bodyMax {
				return found, errLine
			}
		case named(name, "transfer-encoding"):
			return found, errLine
		case named(name, "connection"):
			found.last = named(value, "close")
		}
	}
	_, err = in.Discard(bodyBytes)
	return found, err
}

// line reads up to the end of a line, without it. It is valid until the next read.
func line(in *bufio.Reader) ([]byte, error) {
	text, err := in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, errLine
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(text, "\r\n"), nil
}

// named says whether two words are the same, capitals aside; it makes no garbage.
func named(found []byte, name string) bool {
	return len(found) == len(name) && bytes.EqualFold(found, []byte(name))
}
