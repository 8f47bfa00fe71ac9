package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
)

// A moduleRecord is one entry of the log: the go.sum lines of a module version.
type moduleRecord struct {
	mod  module.Version
	text []byte
}

// readTree makes the records of every module version in a GOPROXY tree, sorted
// by path and version, those that are logged twice once more at the end; and
// the same as they should be.
func readTree(root string, lies, drops, twice map[string]bool) (records, truth []moduleRecord, err error) {
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".mod") {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		esc, file, ok := strings.Cut(filepath.ToSlash(rel), "/@v/")
		if !ok {
			return nil
		}
		path, err := module.UnescapePath(esc)
		if err != nil {
			return err
		}
		version, err := module.UnescapeVersion(strings.TrimSuffix(file, ".mod"))
		if err != nil {
			return err
		}
		m := module.Version{Path: path, Version: version}
		text, err := recordText(root, strings.TrimSuffix(name, ".mod"), m)
		if err != nil {
			return fmt.Errorf("%v: %v", m, err)
		}
		truth = append(truth, moduleRecord{m, text})
		lines := bytes.SplitAfter(text, []byte("\n"))
		if drops[m.String()] && len(lines) > 2 {
			text = lines[1]
		}
		if lies[m.String()] {
			text = corruptHash(text)
		}
		records = append(records, moduleRecord{m, text})
		return nil
	})
	sort.Slice(records, func(i, j int) bool { return records[i].mod.String() < records[j].mod.String() })
	for _, r := range records {
		if twice[r.mod.String()] {
			records = append(records, moduleRecord{r.mod, corruptHash(r.text)})
		}
	}
	return records, truth, err
}

// recordText computes a module's go.sum lines from its files. When the tree has
// no zip it takes the lines from the tree's recorded lookup, and failing that
// gives the go.mod line alone.
func recordText(root, stem string, m module.Version) ([]byte, error) {
	modHash, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(stem + ".mod") })
	if err != nil {
		return nil, err
	}
	modLine := fmt.Sprintf("%s %s/go.mod %s\n", m.Path, m.Version, modHash)
	if _, err := os.Stat(stem + ".zip"); err == nil {
		zipHash, err := dirhash.HashZip(stem+".zip", dirhash.DefaultHash)
		if err != nil {
			return nil, err
		}
		return []byte(fmt.Sprintf("%s %s %s\n", m.Path, m.Version, zipHash) + modLine), nil
	}
	esc, _ := module.EscapePath(m.Path)
	escVersion, _ := module.EscapeVersion(m.Version)
	found, _ := filepath.Glob(filepath.Join(root, "sumdb", "*", "lookup", filepath.FromSlash(esc)+"@"+escVersion))
	for _, name := range found {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		if i := bytes.Index(rest, []byte("\n\n")); i >= 0 {
			return rest[:i+1], nil
		}
	}
	return []byte(modLine), nil
}

// corruptHash changes one character of every h1: hash and keeps it well formed.
func corruptHash(text []byte) []byte {
	out := bytes.Clone(text)
	for i := 0; ; {
		j := bytes.Index(out[i:], []byte("h1:"))
		if j < 0 {
			return out
		}
		i += j + len("h1:")
		if out[i] == 'A' {
			out[i] = 'B'
		} else {
			out[i] = 'A'
		}
	}
}
