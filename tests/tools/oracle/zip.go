package main

import (
	"bytes"
	"compress/flate"
	"hash/crc32"
	"io"
	"log"
	"os"
	"syscall"
	"unicode"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

func init() {
	operations["zip"] = op(checkZip)
	operations["runes"] = op(listRunes)
	operations["inflate"] = op(inflate)
	operations["dirhash"] = op(timeHash)
}

// A zipQuestion asks about a file that claims to be the zip of a module version.
type zipQuestion struct {
	Path, Version string
	Zip           []byte
}

// A zipVerdict is empty where there is no error.
type zipVerdict struct {
	H1         string `json:"h1"`
	HashError  string `json:"hash_error"`
	CheckError string `json:"check_error"`
}

func checkZip(question zipQuestion) (verdict zipVerdict, err error) {
	file, err := os.CreateTemp("", "oracle-*.zip")
	if err != nil {
		return verdict, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := file.Write(question.Zip); err != nil {
		return verdict, err
	}
	verdict.H1, err = dirhash.HashZip(file.Name(), dirhash.Hash1)
	if err != nil {
		verdict.HashError = err.Error()
	}
	version := module.Version{Path: question.Path, Version: question.Version}
	if _, err := zip.CheckZip(version, file.Name()); err != nil {
		verdict.CheckError = err.Error()
	}
	return verdict, nil
}

// A timedHash is the h1 of a file, and the CPU time it took this process.
type timedHash struct {
	H1         string  `json:"h1"`
	CPUSeconds float64 `json:"cpu_s"`
}

// timeHash is for the benchmark.
func timeHash(question struct{ File string }) (timed timedHash, err error) {
	before := cpuSeconds()
	timed.H1, err = dirhash.HashZip(question.File, dirhash.Hash1)
	timed.CPUSeconds = cpuSeconds() - before
	return timed, err
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

// inflate tells the length and the CRC of what raw deflated data holds.
func inflate(question struct{ Data []byte }) ([2]uint32, error) {
	content, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(question.Data)), 1<<20))
	return [2]uint32{uint32(len(content)), crc32.ChecksumIEEE(content)}, err
}

// Runes tells what this Go's tables say of characters. A fold is what zip's
// collision check replaces a character by; only those that change are listed.
type runes struct {
	Version string    `json:"version"`
	Letters [][2]rune `json:"letters"`
	Folds   [][2]rune `json:"folds"`
}

func listRunes(struct{}) (runes, error) {
	list := runes{Version: unicode.Version}
	for r := rune(0x80); r <= unicode.MaxRune; r++ {
		if !unicode.IsLetter(r) {
			continue
		}
		if last := len(list.Letters) - 1; last >= 0 && list.Letters[last][1] == r-1 {
			list.Letters[last][1] = r
		} else {
			list.Letters = append(list.Letters, [2]rune{r, r})
		}
	}
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if folded := fold(r); folded != r {
			list.Folds = append(list.Folds, [2]rune{r, folded})
		}
	}
	return list, nil
}

// fold is what strToFold in golang.org/x/mod/zip does to one character.
func fold(r rune) rune {
	for {
		r0 := r
		r = unicode.SimpleFold(r0)
		if r <= r0 {
			break
		}
	}
	if 'A' <= r && r <= 'Z' {
		r += 'a' - 'A'
	}
	return r
}
