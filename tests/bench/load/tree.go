package main

import (
	"archive/zip"
	"bufio"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// versionsEach is how many versions every module of a made-up tree has: 31 files a module, with its list.
const versionsEach = 10

// treeMain makes a tree of -files stored files and prints the paths of a sample of its small files, spread evenly.
//
// An .info says nothing of its module and a .mod nothing of its version, so those are hard links: a million files then
// take one third of a million blocks. Zips differ from each other, because an adopting cache looks into them.
func treeMain(args []string) {
	flags := flag.NewFlagSet("tree", flag.ExitOnError)
	dir := flags.String("dir", "", "where to make it; must not exist (required)")
	files := flags.Int("files", 1000, "how many files, rounded up to whole modules")
	sample := flags.Int("sample", 1000, "how many paths to print")
	if err := flags.Parse(args); err != nil {
		log.Fatal(err)
	}
	if *dir == "" || flags.NArg() != 0 {
		flags.Usage()
		os.Exit(2)
	}
	modules := (*files + 3*versionsEach) / (3*versionsEach + 1)
	if err := makeTree(*dir, modules); err != nil {
		log.Fatal(err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for i := range *sample {
		extension := "info"
		if i%2 == 1 {
			extension = "mod"
		}
		fmt.Fprintf(out, "/%s/@v/%s.%s\n", modulePath(i*modules / *sample), version(i%versionsEach), extension)
	}
}

func modulePath(i int) string { return fmt.Sprintf("example.com/group%03d/module%03d", i/1000, i%1000) }

func version(k int) string { return fmt.Sprintf("v1.%d.0", k) }

func makeTree(dir string, modules int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	// The files that are linked to live outside the tree, so that the tree holds only what a cache may hold.
	seeds, err := os.MkdirTemp(filepath.Dir(dir), "seeds-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(seeds)
	for k := range versionsEach {
		info := fmt.Sprintf(`{"Version":%q,"Time":"2020-01-01T00:00:00Z"}`, version(k))
		if err := os.WriteFile(filepath.Join(seeds, version(k)), []byte(info), 0o644); err != nil {
			return err
		}
	}
	const makers = 2
	var wait sync.WaitGroup
	errs := make([]error, makers)
	for m := range makers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := m; i < modules && errs[m] == nil; i += makers {
				errs[m] = makeModule(dir, seeds, i)
			}
		}()
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func makeModule(dir, seeds string, i int) error {
	path := modulePath(i)
	folder := filepath.Join(dir, path, "@v")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	mod := []byte("module " + path + "\n\ngo 1.21\n")
	firstMod := filepath.Join(folder, version(0)+".mod")
	if err := os.WriteFile(firstMod, mod, 0o644); err != nil {
		return err
	}
	var list []byte
	for k := range versionsEach {
		v := version(k)
		list = append(list, v+"\n"...)
		if err := os.Link(filepath.Join(seeds, v), filepath.Join(folder, v+".info")); err != nil {
			return err
		}
		if k > 0 {
			if err := os.Link(firstMod, filepath.Join(folder, v+".mod")); err != nil {
				return err
			}
		}
		if err := makeZip(filepath.Join(folder, v+".zip"), path+"@"+v+"/", mod); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "list"), list, 0o644)
}

func makeZip(name, prefix string, mod []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	w, err := z.CreateHeader(&zip.FileHeader{Name: prefix + "go.mod", Method: zip.Store, Modified: time.Unix(1577836800, 0).UTC()})
	if err != nil {
		return err
	}
	if _, err := w.Write(mod); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}
