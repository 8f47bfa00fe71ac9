// Command load is the benchmark's client: it asks a server for files over kept-alive HTTP/1.1 connections, throws the
// bodies away and prints what it saw as one JSON object; `load tree` makes a tree of very many small modules.
//
// Called by tests/bench/run only. It writes its requests and reads its answers by hand, because net/http costs several
// times what the servers under test do, and a client that is slower than the server measures itself. Every run is
// bounded by a number of requests, by -for, and by -timeout above both.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("load: ")
	if len(os.Args) > 1 && os.Args[1] == "tree" {
		treeMain(os.Args[2:])
		return
	}
	var o options
	flag.StringVar(&o.base, "url", "", "http://ADDRESS:PORT of the server (required)")
	flag.StringVar(&o.pathsFile, "paths", "", "file with one request path a line, already percent-encoded (required)")
	flag.IntVar(&o.connections, "connections", 1, "connections, each with one request under way")
	flag.IntVar(&o.requests, "requests", 0, "requests in all, 0 for one per path; paths are taken in order, round and round")
	flag.Float64Var(&o.rate, "rate", 0, "requests a second, started by the clock and timed from when they were due; 0 for as fast as answers come")
	flag.DurationVar(&o.duration, "for", 0, "stop after this long and abandon what is under way, 0 for when all are done")
	flag.DurationVar(&o.timeout, "timeout", 5*time.Minute, "give up after this long")
	flag.BoolVar(&o.each, "each", false, "print the figures of every request too")
	flag.Parse()
	if o.base == "" || o.pathsFile == "" || flag.NArg() != 0 || o.connections < 1 {
		flag.Usage()
		os.Exit(2)
	}
	// The load has one core to itself; a second scheduler thread would only steal from the server's.
	runtime.GOMAXPROCS(1)
	if err := o.load(); err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(run(&o)); err != nil {
		log.Fatal(err)
	}
}

// options says what to ask, how often and for how long.
type options struct {
	base, pathsFile       string
	connections, requests int
	rate                  float64
	duration, timeout     time.Duration
	each                  bool

	address string
	paths   []string
	wire    [][]byte // the request for each path, as sent
}

// load reads the paths and writes the requests out in advance.
func (o *options) load() error {
	u, err := url.Parse(o.base)
	if err != nil || u.Scheme != "http" {
		return fmt.Errorf("-url %s: want http://ADDRESS:PORT", o.base)
	}
	o.address = u.Host
	f, err := os.Open(o.pathsFile)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		path := strings.TrimSpace(lines.Text())
		if path == "" {
			continue
		}
		o.paths = append(o.paths, path)
		// The headers are those of the go command.
		o.wire = append(o.wire, fmt.Appendf(nil,
			"GET %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n", u.Path, path, u.Host))
	}
	if len(o.paths) == 0 {
		return fmt.Errorf("%s: no paths", o.pathsFile)
	}
	if o.requests == 0 && o.duration == 0 {
		o.requests = len(o.paths)
	}
	return lines.Err()
}
