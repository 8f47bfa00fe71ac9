package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func init() {
	operations["verifier"] = op(verifier)
	operations["open"] = op(open)
	operations["head"] = op(head)
	operations["record"] = op(record)
	operations["stored"] = op(stored)
	operations["log"] = op(makeLog)
	operations["prove_record"] = op(proveRecord)
	operations["prove_tree"] = op(proveTree)
	operations["check_record"] = op(checkRecord)
	operations["check_tree"] = op(checkTree)
	operations["lookup"] = op(lookup)
}

type keyAnswer struct {
	Name string `json:"name"`
	Hash uint32 `json:"hash"`
}

func verifier(args struct{ Key string }) (keyAnswer, error) {
	v, err := note.NewVerifier(args.Key)
	if err != nil {
		return keyAnswer{}, err
	}
	return keyAnswer{v.Name(), v.KeyHash()}, nil
}

type textAnswer struct {
	Text string `json:"text"`
}

func open(args struct {
	Key  string
	Note []byte
}) (textAnswer, error) {
	v, err := note.NewVerifier(args.Key)
	if err != nil {
		log.Fatal(err)
	}
	n, err := note.Open(args.Note, note.VerifierList(v))
	if err != nil {
		return textAnswer{}, err
	}
	return textAnswer{n.Text}, nil
}

type headAnswer struct {
	Size int64     `json:"size"`
	Root tlog.Hash `json:"root"`
}

func head(args struct{ Text []byte }) (headAnswer, error) {
	tree, err := tlog.ParseTree(args.Text)
	return headAnswer{tree.N, tree.Hash}, err
}

type recordAnswer struct {
	Number int64     `json:"number"`
	Text   string    `json:"text"`
	Rest   []byte    `json:"rest"`
	Leaf   tlog.Hash `json:"leaf"`
}

func record(args struct{ Answer []byte }) (recordAnswer, error) {
	number, text, rest, err := tlog.ParseRecord(args.Answer)
	return recordAnswer{number, string(text), rest, tlog.RecordHash(text)}, err
}

type storedAnswer struct {
	Index int64  `json:"index"`
	Count int64  `json:"count"` // of the tree of N records
	Tile  string `json:"tile"`
}

func stored(args struct {
	Level int
	N     int64
}) (storedAnswer, error) {
	index := tlog.StoredHashIndex(args.Level, args.N)
	return storedAnswer{index, tlog.StoredHashCount(args.N), tlog.TileForIndex(8, index).Path()}, nil
}

// A treeLog is a log of made-up records, kept for the operations that follow.
type treeLog []tlog.Hash

func (l treeLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(l)) {
			return nil, fmt.Errorf("no stored hash %d", x)
		}
		list[i] = l[x]
	}
	return list, nil
}

// current is the log that "log" made last.
var current treeLog

type logAnswer struct {
	Roots  []tlog.Hash       `json:"roots"`  // of every size from 0 on
	Stored []tlog.Hash       `json:"stored"` // in the order they are stored in
	Tiles  map[string][]byte `json:"tiles"`  // of the whole log
}

// makeLog makes a log whose records are "PREFIX NUMBER\n".
func makeLog(args struct {
	Prefix string
	Size   int64
}) (logAnswer, error) {
	current = nil
	answer := logAnswer{Tiles: map[string][]byte{}}
	for n := int64(0); ; n++ {
		root, err := tlog.TreeHash(n, current)
		if err != nil {
			log.Fatal(err)
		}
		answer.Roots = append(answer.Roots, root)
		if n == args.Size {
			break
		}
		hashes, err := tlog.StoredHashes(n, fmt.Appendf(nil, "%s %d\n", args.Prefix, n), current)
		if err != nil {
			log.Fatal(err)
		}
		current = append(current, hashes...)
	}
	answer.Stored = current
	for _, tile := range tlog.NewTiles(8, 0, args.Size) {
		data, err := tlog.ReadTileData(tile, current)
		if err != nil {
			log.Fatal(err)
		}
		answer.Tiles[tile.Path()] = data
	}
	return answer, nil
}

func proveRecord(args struct{ Size, Number int64 }) ([]tlog.Hash, error) {
	proof, err := tlog.ProveRecord(args.Size, args.Number, current)
	return proof, err
}

func proveTree(args struct{ Size, Older int64 }) ([]tlog.Hash, error) {
	proof, err := tlog.ProveTree(args.Size, args.Older, current)
	return proof, err
}

func checkRecord(args struct {
	Proof        []tlog.Hash
	Size, Number int64
	Root, Leaf   tlog.Hash
}) (bool, error) {
	return true, tlog.CheckRecord(args.Proof, args.Size, args.Root, args.Number, args.Leaf)
}

func checkTree(args struct {
	Proof               []tlog.Hash
	Size, Older         int64
	Root, RootWhenOlder tlog.Hash
}) (bool, error) {
	return true, tlog.CheckTree(args.Proof, args.Size, args.Root, args.Older, args.RootWhenOlder)
}

// lookupArgs is one lookup by the go command's own client, which knows a tree
// head already and is given these answers.
type lookupArgs struct {
	Key, Path, Version string
	Known, Answer      []byte
	Tiles              map[string][]byte

	latest []byte
	saved  []string
	alarm  string
}

type lookupAnswer struct {
	Lines  []string `json:"lines"`
	Saved  []string `json:"saved"`  // paths of the tiles it took for authentic
	Latest []byte   `json:"latest"` // the note it knows now
	Alarm  string   `json:"alarm"`  // its security error, if it raised one
}

func lookup(args lookupArgs) (lookupAnswer, error) {
	args.latest = args.Known
	client := sumdb.NewClient(&args)
	lines, err := client.Lookup(args.Path, args.Version)
	if err == nil {
		var more []string
		more, err = client.Lookup(args.Path, args.Version+"/go.mod")
		lines = append(lines, more...)
	}
	if err != nil && args.alarm == "" {
		return lookupAnswer{}, err
	}
	slices.Sort(args.saved)
	return lookupAnswer{lines, args.saved, args.latest, args.alarm}, nil
}

func (a *lookupArgs) ReadRemote(path string) ([]byte, error) {
	if strings.HasPrefix(path, "/lookup/") {
		return a.Answer, nil
	}
	if data, ok := a.Tiles[strings.TrimPrefix(path, "/")]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (a *lookupArgs) ReadConfig(file string) ([]byte, error) {
	if file == "key" {
		return []byte(a.Key), nil
	}
	return a.latest, nil
}

func (a *lookupArgs) WriteConfig(file string, old, latest []byte) error {
	if string(old) != string(a.latest) {
		return errors.New("the head moved, though there is one client alone")
	}
	a.latest = latest
	return nil
}

func (a *lookupArgs) ReadCache(string) ([]byte, error) { return nil, fs.ErrNotExist }

func (a *lookupArgs) WriteCache(file string, _ []byte) {
	if _, path, ok := strings.Cut(file, "/tile/"); ok {
		a.saved = append(a.saved, "tile/"+path)
	}
}

func (a *lookupArgs) Log(string) {}

func (a *lookupArgs) SecurityError(text string) { a.alarm = text }
