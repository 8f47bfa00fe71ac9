// Command oracle says what Go's own libraries think: one JSON request a line on
// standard input, one JSON answer a line on standard output, in the same order.
//
//	{"op":"open","key":"…","note":"<base64>"}   →   {"ok":{"text":"…"}}
//	{"op":"open","key":"…","note":"<base64>"}   →   {"error":"malformed note"}
//
// Each file beside this one adds the operations of one library to the table.
// An answer with an error is a verdict; a request that makes no sense ends the
// program, because then the test is wrong.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"os"
)

// An operation reads its own arguments out of the request's line.
type operation func(request []byte) (any, error)

// operations is filled by the files beside this one.
var operations = map[string]operation{}

// op makes an operation of a function over its own arguments.
func op[Args, Answer any](answer func(Args) (Answer, error)) operation {
	return func(request []byte) (any, error) {
		var args Args
		if err := json.Unmarshal(request, &args); err != nil {
			log.Fatalf("%v: %s", err, request)
		}
		return answer(args)
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("oracle: ")
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	answers := json.NewEncoder(out)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		var request struct{ Op string }
		if err := json.Unmarshal(line, &request); err != nil {
			log.Fatalf("%v: %s", err, line)
		}
		answer := operations[request.Op]
		if answer == nil {
			log.Fatalf("no operation %q", request.Op)
		}
		value, err := answer(line)
		if err != nil {
			answers.Encode(map[string]string{"error": err.Error()})
		} else {
			answers.Encode(map[string]any{"ok": value})
		}
		if in.Buffered() == 0 {
			out.Flush()
		}
	}
	out.Flush()
}
