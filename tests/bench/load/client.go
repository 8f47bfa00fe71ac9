package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// bufferBytes is what one read may take: large, so that a zip is drained faster than any server sends it.
const bufferBytes = 256 << 10

// client is one connection. It has at most one request under way.
type client struct {
	address  string
	deadline time.Time
	conn     net.Conn
	buf      []byte
	body     int64 // bytes of the body read so far in this exchange
}

// answer is what one exchange took, counted from when it was due.
type answer struct {
	Path      string  `json:"path"`
	Status    int     `json:"status"`
	Bytes     int64   `json:"bytes"`
	FirstMS   float64 `json:"first_ms"` // to the first byte of the status line
	BodyMS    float64 `json:"body_ms"`  // to the first byte of the body
	TotalMS   float64 `json:"total_ms"`
	StartedMS float64 `json:"started_ms"` // when it was due, since the run began
}

func (c *client) connect() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.DialTimeout("tcp", c.address, 10*time.Second)
	if err != nil {
		return err
	}
	c.conn = conn
	return conn.SetDeadline(c.deadline)
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

var (
	headerEnd   = []byte("\r\n\r\n")
	lengthName  = []byte("content-length:")
	closeHeader = []byte("connection: close")
)

// get sends one request and reads the whole answer. On an error the connection is closed.
func (c *client) get(wire []byte, due time.Time, a *answer) (err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.body = 0
	if err := c.connect(); err != nil {
		return err
	}
	if _, err := c.conn.Write(wire); err != nil {
		return err
	}
	have, end := 0, -1
	for end < 0 {
		n, err := c.conn.Read(c.buf[have:])
		if n > 0 && have == 0 {
			a.FirstMS = ms(time.Since(due))
		}
		have += n
		if end = bytes.Index(c.buf[:have], headerEnd); end >= 0 {
			break
		}
		if err != nil {
			return err
		}
		if have == len(c.buf) {
			return errors.New("response header too long")
		}
	}
	header := bytes.ToLower(c.buf[:end+2])
	if !bytes.HasPrefix(header, []byte("http/1.1 ")) || len(header) < 12 {
		return fmt.Errorf("not an HTTP/1.1 response: %q", header)
	}
	if a.Status, err = strconv.Atoi(string(header[9:12])); err != nil {
		return err
	}
	i := bytes.Index(header, lengthName)
	if i < 0 {
		return errors.New("response without Content-Length")
	}
	value, _, _ := bytes.Cut(header[i+len(lengthName):], []byte("\r\n"))
	if a.Bytes, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil {
		return err
	}
	if err := c.drain(int64(have-end-len(headerEnd)), due, a); err != nil {
		return err
	}
	a.TotalMS = ms(time.Since(due))
	if bytes.Contains(header, closeHeader) {
		c.close()
	}
	return nil
}

// drain reads the rest of a body of which `have` bytes came with the header.
func (c *client) drain(have int64, due time.Time, a *answer) error {
	c.body = have
	if have > 0 || a.Bytes == 0 {
		a.BodyMS = ms(time.Since(due))
	}
	for c.body < a.Bytes {
		n, err := c.conn.Read(c.buf)
		if n > 0 && c.body == 0 {
			a.BodyMS = ms(time.Since(due))
		}
		c.body += int64(n)
		if err != nil && c.body < a.Bytes {
			return fmt.Errorf("%d of %d bytes: %w", c.body, a.Bytes, err)
		}
	}
	if c.body != a.Bytes {
		return fmt.Errorf("%d bytes after the end of the answer", c.body-a.Bytes)
	}
	return nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
