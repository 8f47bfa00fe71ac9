package main

import (
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// result is what a run prints.
type result struct {
	Requests   int        `json:"requests"` // answered in full with 200
	Failed     int        `json:"failed"`
	Unanswered int        `json:"unanswered"` // with -rate: under way or overdue at the end, and in the times below
	FirstError string     `json:"first_error,omitempty"`
	Bytes      int64      `json:"bytes"` // of bodies, abandoned ones among them
	Seconds    float64    `json:"seconds"`
	FirstMS    *quantiles `json:"first_ms,omitempty"`
	BodyMS     *quantiles `json:"body_ms,omitempty"`
	TotalMS    *quantiles `json:"total_ms,omitempty"`
	Each       []answer   `json:"each,omitempty"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// failuresMax is how many failed requests one connection makes before it gives up, so that a server that is gone
// does not become a busy loop.
const failuresMax = 100

// worker is one connection and what it collected.
type worker struct {
	client
	answers    []answer
	failed     int
	unanswered int
	first      error
	bytes      int64
}

func run(o *options) *result {
	workers := make([]worker, o.connections)
	deadline := time.Now().Add(o.timeout)
	until := deadline
	if o.duration > 0 {
		until = time.Now().Add(o.duration)
	}
	// All connect before the first request is due, so that a run is not a measurement of accept.
	for i := range workers {
		workers[i].client = client{address: o.address, deadline: until, buf: make([]byte, bufferBytes)}
		if err := workers[i].connect(); err != nil {
			workers[i].failed, workers[i].first = 1, err
		}
	}
	var next atomic.Int64
	var running sync.WaitGroup
	start := time.Now()
	for i := range workers {
		running.Add(1)
		go func() {
			defer running.Done()
			workers[i].work(o, &next, start, until)
		}()
	}
	running.Wait()
	took := time.Since(start)
	if o.rate > 0 && o.duration > 0 {
		// With every connection waiting, requests fall due that nobody can start. They count with the time they had
		// waited when the run ended: leaving them out would make a server look the better the longer it hangs.
		for n := next.Load(); ; n++ {
			due := o.due(start, n)
			if !due.Before(until) {
				break
			}
			workers[0].waiting(start, due, until)
		}
	}
	return summary(o, workers, took)
}

// work takes the next request until there is none or the time is over.
func (w *worker) work(o *options, next *atomic.Int64, start, until time.Time) {
	defer w.close()
	if w.first != nil {
		return
	}
	for {
		n := next.Add(1) - 1
		if o.requests > 0 && n >= int64(o.requests) {
			return
		}
		due := time.Now()
		if o.rate > 0 {
			due = o.due(start, n)
			time.Sleep(time.Until(due))
		}
		if !due.Before(until) {
			return
		}
		a := answer{StartedMS: ms(due.Sub(start))}
		err := w.get(o.wire[n%int64(len(o.wire))], due, &a)
		w.bytes += w.body
		if err == nil && a.Status != 200 {
			err = fmt.Errorf("status %d", a.Status)
		}
		if o.duration > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			if o.rate > 0 {
				w.waiting(start, due, until)
			}
			return // abandoned as asked
		}
		path := o.paths[n%int64(len(o.paths))]
		if err != nil {
			w.failed++
			if w.first == nil {
				w.first = fmt.Errorf("%s: %w", path, err)
			}
			if w.failed >= failuresMax || errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			continue
		}
		if o.each {
			a.Path = path
		}
		w.answers = append(w.answers, a)
	}
}

// due returns when request n is to be started.
func (o *options) due(start time.Time, n int64) time.Time {
	return start.Add(time.Duration(float64(n) / o.rate * float64(time.Second)))
}

// waiting notes a request that had no answer when the run ended.
func (w *worker) waiting(start, due, until time.Time) {
	waited := ms(until.Sub(due))
	w.answers = append(w.answers, answer{StartedMS: ms(due.Sub(start)), FirstMS: waited, BodyMS: waited, TotalMS: waited})
	w.unanswered++
}

func summary(o *options, workers []worker, took time.Duration) *result {
	r := &result{Seconds: took.Seconds()}
	var all []answer
	for i := range workers {
		w := &workers[i]
		all = append(all, w.answers...)
		r.Failed += w.failed
		r.Unanswered += w.unanswered
		r.Bytes += w.bytes
		if r.FirstError == "" && w.first != nil {
			r.FirstError = w.first.Error()
		}
	}
	r.Requests = len(all) - r.Unanswered
	if len(all) > 0 {
		r.FirstMS = spread(all, func(a *answer) float64 { return a.FirstMS })
		r.BodyMS = spread(all, func(a *answer) float64 { return a.BodyMS })
		r.TotalMS = spread(all, func(a *answer) float64 { return a.TotalMS })
	}
	if o.each {
		sort.Slice(all, func(i, j int) bool { return all[i].StartedMS < all[j].StartedMS })
		r.Each = all
	}
	return r
}

func spread(all []answer, value func(*answer) float64) *quantiles {
	values := make([]float64, len(all))
	for i := range all {
		values[i] = value(&all[i])
	}
	sort.Float64s(values)
	at := func(q float64) float64 { return values[min(int(q*float64(len(values))), len(values)-1)] }
	return &quantiles{P50: at(0.5), P95: at(0.95), P99: at(0.99), Max: values[len(values)-1]}
}
