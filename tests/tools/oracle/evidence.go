package main

import (
	"errors"
	"fmt"
	"log"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func init() {
	operations["fork"] = op(fork)
	operations["rollback"] = op(rollback)
}

// evidenceArgs is what Larder hands out of an alarm, and the database's key.
type evidenceArgs struct{ Key, Text string }

// head opens a signed tree head.
func (args evidenceArgs) head(text string) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(args.Key)
	if err != nil {
		log.Fatal(err)
	}
	n, err := note.Open([]byte(text), note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("%v: %q", err, text)
	}
	return tlog.ParseTree([]byte(n.Text))
}

type forkAnswer struct {
	Older int64 `json:"older"`
	Newer int64 `json:"newer"`
}

// fork checks the text that the go command prints when a database forks: two
// signed heads, and the proof that the newer log begins with another tree than
// the older head states.
func fork(args evidenceArgs) (answer forkAnswer, err error) {
	_, rest, ok1 := strings.Cut(args.Text, "old database:\n\t")
	older, rest, ok2 := strings.Cut(rest, "\nnew database:\n\t")
	newer, rest, ok3 := strings.Cut(rest, "\nproof of misbehavior:\n\t")
	if !ok1 || !ok2 || !ok3 {
		return answer, errors.New("malformed evidence")
	}
	unindent := strings.NewReplacer("\n\t", "\n").Replace
	oldTree, err := args.head(unindent(older))
	if err != nil {
		return answer, err
	}
	newTree, err := args.head(unindent(newer))
	if err != nil {
		return answer, err
	}
	var hashes []tlog.Hash
	for _, line := range strings.Fields(unindent(rest)) {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return answer, err
		}
		hashes = append(hashes, hash)
	}
	if len(hashes) == 0 {
		return answer, errors.New("no proof")
	}
	if hashes[0] == oldTree.Hash {
		return answer, errors.New("no fork: the newer log begins with the older one")
	}
	if err := tlog.CheckTree(hashes[1:], newTree.N, newTree.Hash, oldTree.N, hashes[0]); err != nil {
		return answer, err
	}
	return forkAnswer{oldTree.N, newTree.N}, nil
}

type rollbackAnswer struct {
	Known int64 `json:"known"`
	Came  int64 `json:"came"`
}

// rollback opens the two heads of a log that has become shorter.
func rollback(args evidenceArgs) (answer rollbackAnswer, err error) {
	const title = "go.sum database tree\n"
	parts := strings.Split(args.Text, title)
	if len(parts) != 3 {
		return answer, fmt.Errorf("%d heads", len(parts)-1)
	}
	var trees [2]tlog.Tree
	for i, part := range parts[1:] {
		// A note ends with its signature; what stands between two is for people.
		text, _, ok := strings.Cut(part, "\n\n\u2014 ")
		signature, _, ok2 := strings.Cut(part[len(text):][min(2, len(part)-len(text)):], "\n")
		if !ok || !ok2 {
			return answer, errors.New("malformed head")
		}
		if trees[i], err = args.head(title + text + "\n\n" + signature + "\n"); err != nil {
			return answer, err
		}
	}
	if trees[1].N >= trees[0].N {
		return answer, errors.New("no rollback")
	}
	return rollbackAnswer{trees[0].N, trees[1].N}, nil
}
