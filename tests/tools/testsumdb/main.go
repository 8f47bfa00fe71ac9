// Command testsumdb runs a real, signed checksum database with a key of its own
// over the modules of a fixture tree, and lies on request.
//
//	go run . -tree ../../fixtures/tree -http 127.0.0.1:0
//
// It prints one JSON line with the values a client needs:
//
//	{"url":"http://127.0.0.1:41234","name":"sumdb.larder.test","vkey":"sumdb.larder.test+…","gosumdb":"sumdb.larder.test+… http://127.0.0.1:41234","size":105}
//
// See README.md in this directory for the ways it can lie.
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("testsumdb: ")
	tree := flag.String("tree", "", "fixture tree whose modules go into the log (required)")
	addr := flag.String("http", "127.0.0.1:0", "loopback address to listen on")
	name := flag.String("name", "sumdb.larder.test", "name of the database")
	seed := flag.String("seed", "larder", "text the signing key is derived from; the same text gives the same key")
	pad := flag.Int("pad", 0, "records of made-up modules to put before the real ones (70000 makes a three-level tree)")
	padBehind := flag.Int("pad-behind", 0, "records of made-up modules to put behind the real ones")
	forkAt := flag.Int("fork-at", -1, "index of the first record that differs in the forked log; negative counts from the end")
	lies := flag.String("lie", "", "comma-separated path@version whose logged hash is wrong (validly signed)")
	drops := flag.String("drop-zip-line", "", "comma-separated path@version whose record lacks the zip line (validly signed)")
	twice := flag.String("twice", "", "comma-separated path@version that are logged once more, with another hash, behind the others of the tree")
	mode := flag.String("mode", "honest", "how to behave at start; see README.md")
	readyFile := flag.String("ready", "", "also write the ready line to this file")
	duration := flag.Duration("for", 0, "stop after this long, 0 for never")
	flag.Parse()
	if *tree == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	host, _, err := net.SplitHostPort(*addr)
	if err != nil || host != "localhost" && (net.ParseIP(host) == nil || !net.ParseIP(host).IsLoopback()) {
		log.Fatalf("refusing to listen on %s: not a loopback address", *addr)
	}

	records, truth, err := readTree(*tree, set(*lies), set(*drops), set(*twice))
	if err != nil {
		log.Fatal(err)
	}
	db, err := newDatabase(newKey(*name, *seed), newKey(*name, *seed+" impostor"), records, truth, padded{*pad, *padBehind}, *forkAt)
	if err != nil {
		log.Fatal(err)
	}
	if err := db.setMode(behaviour{Mode: *mode}); err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	url := "http://" + ln.Addr().String()
	line, _ := json.Marshal(map[string]any{
		"url": url, "name": *name, "vkey": db.key.verifier, "gosumdb": db.key.verifier + " " + url, "size": db.honest.size(),
	})
	fmt.Println(string(line))
	if *readyFile != "" {
		if err := os.WriteFile(*readyFile+".tmp", append(line, '\n'), 0o644); err != nil {
			log.Fatal(err)
		}
		if err := os.Rename(*readyFile+".tmp", *readyFile); err != nil {
			log.Fatal(err)
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	if *duration > 0 {
		time.AfterFunc(*duration, func() { stop <- os.Interrupt })
	}
	go func() { log.Fatal(http.Serve(ln, db.handler())) }()
	<-stop
}

func set(list string) map[string]bool {
	m := map[string]bool{}
	for _, s := range strings.Split(list, ",") {
		if s != "" {
			m[s] = true
		}
	}
	return m
}

// A key is a signing key in the two text forms of golang.org/x/mod/sumdb/note.
type key struct {
	signer, verifier string
}

// newKey derives a key pair from text, so that tests can know it beforehand.
func newKey(name, text string) key {
	seed := sha256.Sum256([]byte(text))
	private := ed25519.NewKeyFromSeed(seed[:])
	public := append([]byte{1}, private.Public().(ed25519.PublicKey)...) // 1 is the algorithm, Ed25519
	sum := sha256.Sum256(append([]byte(name+"\n"), public...))
	hash := binary.BigEndian.Uint32(sum[:4])
	return key{
		signer:   fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))),
		verifier: fmt.Sprintf("%s+%08x+%s", name, hash, base64.StdEncoding.EncodeToString(public)),
	}
}
