// kv-load SYSTEM: writes and reads keys of a key-value store, and prints what that took, a line of JSON for each round.
// Its settings are variables, BENCH_*; docs/bench.md describes them and the lines. "minicluster bench kv" runs it in a
// container beside the cluster.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// connection is one connection of a client to one node.
type connection interface {
	put(ctx context.Context, key string, value []byte) error
	get(ctx context.Context, key string) ([]byte, error)
	close()
}

// systems has for each system what opens a connection. The keys exist only once prepare has put them.
var systems = map[string]func(ctx context.Context, endpoint string) (connection, error){
	"etcd":      openEtcd,
	"zookeeper": openZooKeeper,
	"consul":    openConsul,
}

// patience is how long a connection may take to be opened while keys are prepared, and the pause between attempts.
const patience, pause = 10 * time.Second, 20 * time.Millisecond

type settings struct {
	open        func(ctx context.Context, endpoint string) (connection, error)
	endpoints   []string
	operation   string // put, get or mixed
	clients     int    // that wait for an answer at the same time
	connections int    // which they share
	keys        int
	value       []byte
	warmup      time.Duration
	duration    time.Duration // of a round
	rounds      int
	timeout     time.Duration // of a request
	bucket      time.Duration // of the timeline; 0: there is none
}

// line is what is printed: event is "begin" of a round, its "end", or "done".
type line struct {
	Event      string  `json:"event"`
	Round      int     `json:"round,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
	Operations int     `json:"operations"`
	Errors     int     `json:"errors"`
	Error      string  `json:"error,omitempty"` // the first one
	// Milliseconds within which that share of the requests was answered.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	CPU float64 `json:"cpu"` // seconds of processor time of this program
	// The longest time without an answer, and when it began, in seconds of the round; and the answers of each bucket.
	Gap      float64 `json:"gap,omitempty"`
	GapBegin float64 `json:"gap_begin,omitempty"`
	Timeline []int   `json:"timeline,omitempty"`
}

func main() {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := run(stop); err != nil {
		emit(line{Event: "failed", Error: err.Error()})
	}
	// minicluster reads the lines and then removes the container; where it was killed, this ends by itself.
	select {
	case <-stop.Done():
	case <-time.After(time.Minute):
	}
}

func run(stop context.Context) error {
	s, err := read(os.Args)
	if err != nil {
		return err
	}
	pool := make([]*shared, s.connections)
	for i := range pool {
		pool[i] = &shared{s: s, next: i}
		defer pool[i].drop(nil)
	}
	if err := prepare(stop, s, pool); err != nil {
		return fmt.Errorf("preparing keys: %w", err)
	}
	if s.warmup > 0 {
		s.round(stop, pool, s.warmup)
	}
	for n := range s.rounds {
		emit(line{Event: "begin", Round: n + 1})
		result := s.round(stop, pool, s.duration)
		if stop.Err() != nil {
			return errors.New("interrupted")
		}
		result.Event, result.Round = "end", n+1
		emit(result)
	}
	emit(line{Event: "done"})
	return nil
}

func emit(l line) {
	text, _ := json.Marshal(l)
	fmt.Println(string(text))
}

func read(argv []string) (*settings, error) {
	if len(argv) != 2 || systems[argv[1]] == nil {
		return nil, errors.New("usage: kv-load etcd|zookeeper|consul")
	}
	s := &settings{open: systems[argv[1]], operation: os.Getenv("BENCH_OPERATION")}
	s.endpoints = strings.FieldsFunc(os.Getenv("BENCH_ENDPOINTS"), func(r rune) bool { return r == ',' || r == ' ' })
	if len(s.endpoints) == 0 {
		return nil, errors.New("BENCH_ENDPOINTS is empty")
	}
	if !slices.Contains([]string{"put", "get", "mixed"}, s.operation) {
		return nil, fmt.Errorf("BENCH_OPERATION %q is not put, get or mixed", s.operation)
	}
	var bytes int
	var failed error
	number := func(name string, least float64) float64 {
		value, err := strconv.ParseFloat(os.Getenv(name), 64)
		if err != nil || value < least {
			failed = fmt.Errorf("%s %q is not a number of at least %g", name, os.Getenv(name), least)
		}
		return value
	}
	seconds := func(name string, least float64) time.Duration {
		return time.Duration(number(name, least) * float64(time.Second))
	}
	s.clients, s.connections = int(number("BENCH_CLIENTS", 1)), int(number("BENCH_CONNECTIONS", 1))
	s.keys, bytes, s.rounds = int(number("BENCH_KEYS", 1)), int(number("BENCH_VALUE", 1)), int(number("BENCH_ROUNDS", 1))
	s.warmup, s.duration = seconds("BENCH_WARMUP", 0), seconds("BENCH_SECONDS", 0.1)
	s.timeout, s.bucket = seconds("BENCH_TIMEOUT", 0.01), seconds("BENCH_BUCKET", 0)
	s.value = make([]byte, bytes)
	for i := range s.value {
		s.value[i] = "0123456789abcdef"[rand.IntN(16)]
	}
	return s, failed
}

// shared is a connection that several clients use. One that fails is opened again, to the next node.
type shared struct {
	s    *settings
	lock sync.Mutex
	next int
	open connection
}

func (c *shared) get(ctx context.Context) (connection, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.open == nil {
		endpoint := c.s.endpoints[c.next%len(c.s.endpoints)]
		opened, err := c.s.open(ctx, endpoint)
		if err != nil {
			c.next++
			return nil, fmt.Errorf("%s: %w", endpoint, err)
		}
		c.open = opened
	}
	return c.open, nil
}

// drop closes a connection that failed, unless another client has done so; nil is whichever there is.
func (c *shared) drop(failed connection) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.open != nil && (failed == nil || failed == c.open) {
		c.open.close()
		c.open = nil
		c.next++
	}
}

func key(n int) string { return fmt.Sprintf("bench-%06d", n) }

// prepare puts every key once, unless an earlier run has. Nodes may need a moment: attempts are repeated.
func prepare(stop context.Context, s *settings, pool []*shared) error {
	end := time.Now().Add(patience)
	again := func(do func(connection, context.Context) error) error {
		for {
			ctx, cancel := context.WithTimeout(stop, patience)
			c, err := pool[0].get(ctx)
			if err == nil {
				if err = do(c, ctx); err != nil {
					pool[0].drop(c)
				}
			}
			cancel()
			if err == nil || stop.Err() != nil || time.Now().After(end) {
				return err
			}
			time.Sleep(pause)
		}
	}
	complete := false
	_ = again(func(c connection, ctx context.Context) error {
		last, err := c.get(ctx, key(s.keys-1))
		complete = err == nil && len(last) == len(s.value)
		return nil // that there is no such key may be an error
	})
	var group sync.WaitGroup
	var first atomic.Pointer[error]
	const writers = 16
	for w := range writers {
		group.Go(func() {
			for n := w; n < s.keys-1 && !complete && first.Load() == nil; n += writers {
				if err := again(func(c connection, ctx context.Context) error { return c.put(ctx, key(n), s.value) }); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	group.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return again(func(c connection, ctx context.Context) error { return c.put(ctx, key(s.keys-1), s.value) })
}

// worker is what one client has seen in a round.
type worker struct {
	latencies []time.Duration
	answered  []time.Duration // when, in the round; only for a timeline
	errors    int
	first     error
}

func (s *settings) round(stop context.Context, pool []*shared, duration time.Duration) line {
	workers := make([]worker, s.clients)
	ctx, cancel := context.WithTimeout(stop, duration)
	defer cancel()
	before, begin := cpu(), time.Now()
	var group sync.WaitGroup
	for i := range workers {
		group.Go(func() { s.work(ctx, pool[i%len(pool)], &workers[i], begin, rand.New(rand.NewPCG(uint64(i), 1))) })
	}
	group.Wait()
	took := time.Since(begin)
	result := line{Seconds: took.Seconds(), CPU: (cpu() - before).Seconds()}
	var latencies, answered []time.Duration
	for _, w := range workers {
		latencies, answered = append(latencies, w.latencies...), append(answered, w.answered...)
		result.Errors += w.errors
		if result.Error == "" && w.first != nil {
			result.Error = w.first.Error()
		}
	}
	result.Operations = len(latencies)
	slices.Sort(latencies)
	result.P50, result.P95, result.P99 = at(latencies, 0.50), at(latencies, 0.95), at(latencies, 0.99)
	result.Max = at(latencies, 1)
	if s.bucket > 0 {
		slices.Sort(answered)
		result.Timeline = make([]int, max(1, int((duration+s.bucket-1)/s.bucket)))
		var last time.Duration
		for _, when := range answered { // the timer that ends the round may be late
			result.Timeline[min(int(when/s.bucket), len(result.Timeline)-1)]++
		}
		for _, when := range append(answered, duration) {
			if gap := (when - last).Seconds(); gap > result.Gap {
				result.Gap, result.GapBegin = gap, last.Seconds()
			}
			last = when
		}
	}
	return result
}

func (s *settings) work(ctx context.Context, c *shared, w *worker, begin time.Time, random *rand.Rand) {
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, s.timeout)
		asked := time.Now()
		connected, err := c.get(one)
		if err == nil {
			name := key(random.IntN(s.keys))
			if s.operation == "put" || (s.operation == "mixed" && random.IntN(2) == 0) {
				err = connected.put(one, name, s.value)
			} else {
				var value []byte
				if value, err = connected.get(one, name); err == nil && len(value) != len(s.value) {
					err = fmt.Errorf("%s has %d bytes", name, len(value))
				}
			}
		}
		cancel()
		answered := time.Now()
		switch {
		case ctx.Err() != nil: // what the end of the round cut off counts neither way
		case err != nil:
			w.errors++
			if w.first == nil {
				w.first = err
			}
			if connected != nil {
				c.drop(connected)
			}
			time.Sleep(pause)
		default:
			w.latencies = append(w.latencies, answered.Sub(asked))
			if s.bucket > 0 {
				w.answered = append(w.answered, answered.Sub(begin))
			}
		}
	}
}

// at gives a percentile of sorted times, in milliseconds: the smallest time within which that share was answered.
func at(sorted []time.Duration, share float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	n := max(0, int(float64(len(sorted))*share+0.999999)-1)
	return float64(sorted[min(n, len(sorted)-1)].Microseconds()) / 1000
}

// cpu is the processor time that this program has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
