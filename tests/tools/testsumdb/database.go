package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A treeLog is an append-only log held in memory.
type treeLog struct {
	records [][]byte
	hashes  []tlog.Hash              // in stored-hash order
	index   map[module.Version]int64 // of those that are there twice, the first
}

// ReadHashes implements tlog.HashReader.
func (l *treeLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(l.hashes)) {
			return nil, notExist("hash", fmt.Sprint(x))
		}
		list[i] = l.hashes[x]
	}
	return list, nil
}

// notExist returns an error that sumdb.Server answers with 404. It asks
// os.IsNotExist, which looks inside a PathError but not inside a wrapped error.
func notExist(what, name string) error {
	return &fs.PathError{Op: what, Path: name, Err: fs.ErrNotExist}
}

func (l *treeLog) size() int64 { return int64(len(l.records)) }

func (l *treeLog) add(m module.Version, text []byte) error {
	id := l.size()
	hashes, err := tlog.StoredHashes(id, text, l)
	if err != nil {
		return err
	}
	l.records = append(l.records, text)
	l.hashes = append(l.hashes, hashes...)
	if _, ok := l.index[m]; !ok {
		l.index[m] = id
	}
	return nil
}

// behaviour says how the database answers. It is the body of PUT /_/mode.
type behaviour struct {
	Mode   string `json:"mode"`             // see modes
	Match  string `json:"match,omitempty"`  // regular expression: which path@version, or which tile path, to harm; empty for all
	Size   int64  `json:"size,omitempty"`   // rollback, young: the tree size to claim; default half
	Status int    `json:"status,omitempty"` // status: the HTTP status to answer

	re *regexp.Regexp
}

var modes = map[string]string{
	"honest":          "tells the truth",
	"fork":            "answers everything from a second log that differs from record -fork-at on and is one record longer",
	"fork-same-size":  "the same, but the second log has the honest log's size",
	"wrong-record":    "changes the hashes in a looked-up record; id, head and tiles stay true",
	"wrong-id":        "gives a looked-up record the id of another",
	"garbage":         "cuts a looked-up record short of its blank line",
	"bad-signature":   "flips a bit in the signature of the tree head",
	"wrong-key":       "signs tree heads with another key of the same name",
	"wrong-root":      "signs a tree head whose root hash is wrong",
	"tampered-tile":   "flips a bit in the first hash of a tile",
	"short-tile":      "leaves the last hash off a tile",
	"rollback":        "signs, truthfully, an older tree head",
	"young":           "the same, and does not find what was logged later; from it to honest the log grows",
	"other-module":    "answers a lookup truthfully with the record of another module",
	"lines-outside":   "signs a tree head with the true go.sum lines of the match behind its root, whatever the record says",
	"forged-edge":     "changes the hashes in a looked-up record, and in its lowest tile the hash of that record to fit",
	"missing-partial": "answers 404 to every partial tile, as if each had been completed",
	"status":          "answers everything with an HTTP status",
}

type database struct {
	key, impostor key
	honest        *treeLog
	forked        *treeLog       // one record longer than honest
	truth         []moduleRecord // go.sum lines of the tree's modules, lies and omissions of the log undone

	mu     sync.Mutex
	b      behaviour
	counts map[string]int
}

// padded says how many made-up records stand before and behind the real ones.
type padded struct{ before, behind int }

func newDatabase(k, impostor key, records, truth []moduleRecord, pad padded, forkAt int) (*database, error) {
	d := &database{key: k, impostor: impostor, truth: truth, counts: map[string]int{}}
	size := pad.before + len(records) + pad.behind
	if forkAt < 0 {
		forkAt += size
	}
	if forkAt < 0 || forkAt >= size {
		return nil, fmt.Errorf("-fork-at is outside the log of %d records", size)
	}
	build := func(fork bool) (*treeLog, error) {
		l := &treeLog{index: map[module.Version]int64{}}
		all := make([]moduleRecord, 0, size+1)
		for i := range pad.before {
			all = append(all, padding(i))
		}
		all = append(all, records...)
		for i := range pad.behind {
			all = append(all, padding(pad.before+i))
		}
		if fork {
			all = append(all, padding(pad.before+pad.behind))
		}
		for i, r := range all {
			text := r.text
			if fork && i == forkAt {
				text = corruptHash(text)
			}
			if err := l.add(r.mod, text); err != nil {
				return nil, err
			}
		}
		return l, nil
	}
	var err error
	if d.honest, err = build(false); err != nil {
		return nil, err
	}
	d.forked, err = build(true)
	return d, err
}

// padding is the record of the i'th made-up module.
func padding(i int) moduleRecord {
	m := module.Version{Path: fmt.Sprintf("pad.example/m%07d", i), Version: "v1.0.0"}
	hash := func(s string) string {
		h := tlog.RecordHash([]byte(s))
		return base64.StdEncoding.EncodeToString(h[:])
	}
	return moduleRecord{m, fmt.Appendf(nil, "%s %s h1:%s\n%s %s/go.mod h1:%s\n", m.Path, m.Version, hash(m.Path), m.Path, m.Version, hash(m.Path+"/go.mod"))}
}

func (d *database) setMode(b behaviour) error {
	if b.Mode == "" {
		b.Mode = "honest"
	}
	if modes[b.Mode] == "" {
		return fmt.Errorf("unknown mode %q", b.Mode)
	}
	if b.Mode == "status" && (b.Status < 400 || b.Status > 599) {
		return fmt.Errorf("mode status needs a status from 400 to 599")
	}
	re, err := regexp.Compile(b.Match)
	if err != nil {
		return err
	}
	b.re = re
	d.mu.Lock()
	d.b = b
	d.mu.Unlock()
	return nil
}

func (d *database) now() behaviour {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b
}

// log returns the log to answer from, and the size to claim for it.
func (d *database) log(b behaviour) (*treeLog, int64) {
	switch b.Mode {
	case "fork":
		return d.forked, d.forked.size()
	case "fork-same-size":
		return d.forked, d.honest.size()
	case "rollback", "young":
		if b.Size > 0 {
			return d.honest, min(b.Size, d.honest.size())
		}
		return d.honest, max(d.honest.size()/2, 1)
	}
	return d.honest, d.honest.size()
}

// Signed implements sumdb.ServerOps.
func (d *database) Signed(context.Context) ([]byte, error) {
	b := d.now()
	l, n := d.log(b)
	root, err := tlog.TreeHash(n, l)
	if err != nil {
		return nil, err
	}
	if b.Mode == "wrong-root" {
		root[0] ^= 1
	}
	k := d.key
	if b.Mode == "wrong-key" {
		k = d.impostor
	}
	signer, err := note.NewSigner(k.signer)
	if err != nil {
		return nil, err
	}
	text := string(tlog.FormatTree(tlog.Tree{N: n, Hash: root}))
	if b.Mode == "lines-outside" {
		for _, r := range d.truth {
			if b.matchesRecord(r.text) {
				text += string(r.text)
			}
		}
	}
	msg, err := note.Sign(&note.Note{Text: text}, signer)
	if err == nil && b.Mode == "bad-signature" {
		msg = flipSignature(msg)
	}
	return msg, err
}

// flipSignature flips a bit in the last byte of a note's signature and leaves
// the key hash before it alone.
func flipSignature(msg []byte) []byte {
	i := bytes.LastIndexByte(msg, ' ') + 1
	sig, _ := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(msg[i:])))
	sig[len(sig)-1] ^= 1
	return fmt.Appendf(msg[:i:i], "%s\n", base64.StdEncoding.EncodeToString(sig))
}

// ReadRecords implements sumdb.ServerOps.
func (d *database) ReadRecords(_ context.Context, id, n int64) ([][]byte, error) {
	b := d.now()
	l, _ := d.log(b)
	if id < 0 || id+n > l.size() {
		return nil, notExist("records from", fmt.Sprint(id))
	}
	out := make([][]byte, n)
	for i := range out {
		out[i] = l.records[id+int64(i)]
		if (b.Mode == "wrong-record" || b.Mode == "forged-edge") && b.matchesRecord(out[i]) {
			out[i] = corruptHash(out[i])
		}
	}
	return out, nil
}

func (b *behaviour) matchesRecord(text []byte) bool {
	f := strings.Fields(string(text))
	return len(f) > 1 && b.re.MatchString(f[0]+"@"+strings.TrimSuffix(f[1], "/go.mod"))
}

// Lookup implements sumdb.ServerOps.
func (d *database) Lookup(_ context.Context, m module.Version) (int64, error) {
	b := d.now()
	l, n := d.log(b)
	id, ok := l.index[m]
	if !ok || b.Mode == "young" && id >= n {
		return 0, notExist("not found:", m.String())
	}
	if b.Mode == "other-module" && b.re.MatchString(m.String()) {
		return (id + 1) % n, nil
	}
	return id, nil
}

// ReadTileData implements sumdb.ServerOps.
func (d *database) ReadTileData(_ context.Context, t tlog.Tile) ([]byte, error) {
	b := d.now()
	l, _ := d.log(b)
	if b.Mode == "missing-partial" && t.W < 1<<t.H {
		return nil, notExist("tile", t.Path())
	}
	data, err := tlog.ReadTileData(t, l)
	if err == nil && b.Mode == "forged-edge" && t.L == 0 {
		forgeTile(data, t, l, b)
	}
	if err != nil || !b.re.MatchString(t.Path()) {
		return data, err
	}
	switch b.Mode {
	case "tampered-tile":
		data[0] ^= 1
	case "short-tile":
		data = data[:len(data)-tlog.HashSize]
	}
	return data, nil
}

// forgeTile puts the hashes of forged records into a lowest tile.
func forgeTile(data []byte, t tlog.Tile, l *treeLog, b behaviour) {
	for i := range t.W {
		if text := l.records[t.N<<t.H+int64(i)]; b.matchesRecord(text) {
			hash := tlog.RecordHash(corruptHash(text))
			copy(data[i*tlog.HashSize:], hash[:])
		}
	}
}

// handler serves the database both at the root, for GOSUMDB="key url", and under
// /sumdb/NAME/, as a module mirror passes it on.
func (d *database) handler() http.Handler {
	name, _, _ := strings.Cut(d.key.verifier, "+")
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := d.now()
		d.mu.Lock()
		d.counts[r.URL.Path]++
		d.mu.Unlock()
		switch {
		case b.Mode == "status" && b.re.MatchString(r.URL.Path):
			http.Error(w, http.StatusText(b.Status), b.Status)
		case r.URL.Path == "/supported":
			w.WriteHeader(http.StatusOK)
		case strings.HasPrefix(r.URL.Path, "/lookup/") && (b.Mode == "garbage" || b.Mode == "wrong-id") && b.re.MatchString(r.URL.Path):
			d.harmLookup(w, r, b)
		default:
			sumdb.NewServer(d).ServeHTTP(w, r)
		}
	})
	mux := http.NewServeMux()
	mux.Handle("/", serve)
	mux.Handle("/sumdb/"+name+"/", http.StripPrefix("/sumdb/"+name, serve))
	mux.HandleFunc("/_/mode", d.serveMode)
	mux.HandleFunc("/_/counts", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if r.Method == http.MethodDelete {
			d.counts = map[string]int{}
		}
		json.NewEncoder(w).Encode(d.counts)
	})
	return mux
}

// harmLookup answers a lookup and spoils its framing on the way out.
func (d *database) harmLookup(w http.ResponseWriter, r *http.Request, b behaviour) {
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	sumdb.NewServer(d).ServeHTTP(rec, r)
	body := rec.body.Bytes()
	if rec.status == http.StatusOK {
		id, rest, _ := bytes.Cut(body, []byte("\n"))
		switch b.Mode {
		case "garbage":
			body = body[:bytes.Index(body, []byte("\n\n"))]
		case "wrong-id":
			other := "0"
			if string(id) == other {
				other = "1"
			}
			body = append([]byte(other+"\n"), rest...)
		}
	}
	w.Header().Set("Content-Type", rec.header.Get("Content-Type"))
	w.WriteHeader(rec.status)
	w.Write(body)
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }

func (d *database) serveMode(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		var b behaviour
		err := json.NewDecoder(r.Body).Decode(&b)
		if err == nil {
			err = d.setMode(b)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	json.NewEncoder(w).Encode(d.now())
}
