package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// One tenant that does all it may at once (`noise`), and another that asks for little, at a pace (`neighbour`).

// told is what one sort of noise was answered: statuses, bytes, and of refusals what they say.
type told struct {
	mu     sync.Mutex
	Status map[int]int    `json:"status"`
	Bytes  int64          `json:"bytes"`
	Said   map[string]int `json:"said,omitempty"`
	Retry  map[string]int `json:"retry_after,omitempty"`
}

func (t *told) answer(code, size int, b []byte, retry string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Status[code]++
	t.Bytes += int64(size)
	if code >= 400 || code == 0 {
		said := string(b)
		var m struct{ Message string }
		if json.Unmarshal(b, &m) == nil && m.Message != "" {
			said = m.Message
		}
		if len(said) > 300 {
			said = said[:300]
		}
		if len(t.Said) < 20 || t.Said[said] > 0 {
			t.Said[said]++
		}
		if retry != "" {
			t.Retry[retry]++
		}
	}
}

func newTold() *told {
	return &told{Status: map[int]int{}, Said: map[string]int{}, Retry: map[string]int{}}
}

// tell does a request, and counts its answer. Whoever was refused waits a moment, less than he is told to.
func (t *told) tell(c *http.Client, ctx context.Context, method, url, ct string, body []byte) int {
	code, b, err := do(c, ctx, method, url, ct, body)
	if ctx.Err() != nil {
		return 0
	}
	if err != nil {
		t.answer(0, 0, []byte(err.Error()), "")
		time.Sleep(100 * time.Millisecond)
		return 0
	}
	t.answer(code, len(b), b, "")
	if code == 429 {
		time.Sleep(100 * time.Millisecond)
	}
	return code
}

// bigBody is a ConfigMap of about so many bytes: one long value, or very many short ones.
func bigBody(name string, size int, many bool) []byte {
	var b strings.Builder
	b.WriteString(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `"},"data":{`)
	if many {
		for i := 0; b.Len() < size-100; i++ {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `"key-%d":"a value"`, i)
		}
	} else {
		b.WriteString(`"long":"` + strings.Repeat("x", size-b.Len()-100) + `"`)
	}
	b.WriteString(`}}`)
	return []byte(b.String())
}

// bigDefinition is a CRD of about so many bytes.
func bigDefinition(plural string, size int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"%[1]s.noise.example"},"spec":{"group":"noise.example","scope":"Namespaced","names":{"plural":"%[1]s","kind":"%[2]s"},"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{`, plural, strings.ToUpper(plural[:1])+plural[1:])
	for i := 0; b.Len() < size-200; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"p%d":{"type":"string","maxLength":63,"description":"What this one is for, at length."}`, i)
	}
	b.WriteString(`}}}}}}]}}`)
	return []byte(b.String())
}

// noiseOf runs what -noise names until it is asked to end, and prints what it was told.
func noiseOf(ctx context.Context) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *dur)
	defer cancel()
	var all sync.WaitGroup
	sorts := map[string]*told{}
	loop := func(sort string, workers int, each func(c *http.Client, t *told, worker int)) {
		t := sorts[sort]
		if t == nil {
			t = newTold()
			sorts[sort] = t
		}
		c := client()
		for w := 0; w < workers; w++ {
			all.Add(1)
			go func() {
				defer all.Done()
				for ctx.Err() == nil {
					each(c, t, w)
				}
			}()
		}
	}
	var opened sync.WaitGroup
	for _, sort := range strings.Split(*noise, ",") {
		switch sort {
		case "lists":
			loop(sort, 50, func(c *http.Client, t *told, _ int) { t.tell(c, ctx, "GET", coll(ctx), "", nil) })
		case "bodies":
			bodies := [][]byte{bigBody("long", 3_000_000, false), bigBody("many", 3_000_000, true)}
			loop(sort, 4, func(c *http.Client, t *told, w int) {
				t.tell(c, ctx, "POST", coll(ctx), "application/json", bodies[w%2])
			})
		case "definitions":
			body := bigDefinition("bigs", 1_000_000)
			url := baseOf(ctx) + "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
			loop(sort, 1, func(c *http.Client, t *told, _ int) {
				t.tell(c, ctx, "POST", url, "application/json", body)
				t.tell(c, ctx, "DELETE", url+"/bigs.noise.example", "", nil)
			})
		case "writes":
			n := time.Now().UnixNano()
			loop(sort, 64, func(c *http.Client, t *told, _ int) {
				name := fmt.Sprintf("w-%s-%d", *prefix, atomic.AddInt64(&n, 1))
				url := baseOf(ctx) + "/api/v1/namespaces/default/configmaps"
				t.tell(c, ctx, "POST", url, "application/json", object(name, "w"))
			})
		case "watches":
			opened.Add(*watchers)
			t := newTold()
			sorts[sort] = t
			gate := make(chan bool, 64) // at most so many are being opened at once
			for w := 0; w < *watchers; w++ {
				all.Add(1)
				go func() {
					defer all.Done()
					watchAgain(ctx, t, gate, &opened)
				}()
			}
			if *rate > 0 {
				var n int64
				loop("watched writes", 1, func(c *http.Client, t *told, _ int) {
					name := fmt.Sprintf("n-%d", atomic.AddInt64(&n, 1)%100)
					t.tell(c, ctx, "PATCH", coll(ctx)+"/"+*prefix+"-"+name[2:], "application/merge-patch+json", patchBody(name))
					time.Sleep(time.Duration(float64(time.Second) / *rate))
				})
			}
		default:
			die(fmt.Errorf("no such noise: %s", sort))
		}
	}
	opened.Wait()
	self0, began := selfCPU(), time.Now()
	fmt.Println(`{"ready":true}`)
	all.Wait()
	out := map[string]any{"op": "noise", "told": sorts, "cpu_share": r3((selfCPU() - self0) / 1000 / time.Since(began).Seconds())}
	b, _ := json.Marshal(out)
	fmt.Println(string(b))
}

// watchAgain holds one watch, on a connection of its own, and begins another when it is over. `opened` hears of the first answer.
func watchAgain(ctx context.Context, t *told, gate chan bool, opened *sync.WaitGroup) {
	first := true
	tell := func() {
		if first {
			first = false
			opened.Done()
		}
	}
	defer tell()
	transport := &http.Transport{DialContext: dialer().DialContext, TLSClientConfig: trust, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10, DisableCompression: true}
	c := &http.Client{Transport: transport}
	for ctx.Err() == nil {
		gate <- true
		if ctx.Err() != nil {
			<-gate
			return
		}
		lasts := strconv.Itoa(60 + rand.Intn(60))
		req, _ := http.NewRequestWithContext(ctx, "GET", coll(ctx)+"?watch=true&allowWatchBookmarks=true&resourceVersion=0&labelSelector=none%3Dnone&timeoutSeconds="+lasts, nil)
		if rand.Intn(2) == 0 {
			req, _ = http.NewRequestWithContext(ctx, "GET", coll(ctx)+"?watch=true&allowWatchBookmarks=true&timeoutSeconds="+lasts+"&resourceVersion="+since, nil)
		}
		req.Header.Set("Authorization", "Bearer "+*token)
		r, err := c.Do(req)
		<-gate
		if err != nil {
			if ctx.Err() == nil {
				t.answer(0, 0, []byte(err.Error()), "")
				time.Sleep(100 * time.Millisecond)
			}
			tell()
			continue
		}
		br := bufio.NewReaderSize(r.Body, 1<<10)
		if r.StatusCode != 200 {
			b := make([]byte, 4096)
			n, _ := br.Read(b)
			t.answer(r.StatusCode, n, b[:n], r.Header.Get("Retry-After"))
			r.Body.Close()
			tell()
			time.Sleep(time.Second)
			continue
		}
		t.answer(200, 0, nil, "")
		tell()
		n := 0
		for buffer := make([]byte, 2048); err == nil; {
			var m int
			m, err = br.Read(buffer)
			n += m
		}
		r.Body.Close()
		atomic.AddInt64(&t.Bytes, int64(n))
	}
	transport.CloseIdleConnections()
}

var trust *tls.Config
var since string

// prepareWatches finds out from where the watches begin.
func prepareWatches(c *http.Client, ctx context.Context) {
	trust = c.Transport.(*http.Transport).TLSClientConfig
	trust.ClientSessionCache = nil
	_, b, err := do(c, ctx, "GET", coll(ctx)+"?limit=1", "", nil)
	die(err)
	var m meta
	die(json.Unmarshal(b, &m))
	since = m.Metadata.ResourceVersion
}

// neighbourOf reads and creates, each at -rate a second over -c workers of its own, for -max-time; and says how late the
// generator itself was.
func neighbourOf(c *http.Client, ctx context.Context) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	defer stop()
	name := *prefix + "-0"
	code, b, err := do(c, ctx, "POST", coll(ctx), "application/json", object(name, "g"))
	die(err)
	if code != 201 && code != 409 {
		die(fmt.Errorf("neighbour: %d %.300s", code, b))
	}
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	var made int64
	ops := map[string]func() (int, []byte, error){
		"get": func() (int, []byte, error) { return do(c, ctx, "GET", coll(ctx)+"/"+name, "", nil) },
		"create": func() (int, []byte, error) {
			own := fmt.Sprintf("%s-%s-%d", *prefix, run, atomic.AddInt64(&made, 1))
			return do(c, ctx, "POST", coll(ctx), "application/json", object(own, "g"))
		},
	}
	want := map[string]int{"get": 200, "create": 201}
	stats := map[string]*stat{}
	start := time.Now()
	self0 := selfCPU()
	var wg sync.WaitGroup
	for op, ask := range ops {
		s := newStat()
		stats[op] = s
		for w := 0; w < *conc; w++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				pause := time.Duration(float64(*conc) / *rate * float64(time.Second))
				at := start.Add(time.Duration(rand.Int63n(int64(pause))))
				for time.Since(start) < *dur && ctx.Err() == nil {
					if d := time.Until(at); d > 0 {
						time.Sleep(d)
					}
					began := time.Now()
					code, b, err := ask()
					took := float64(time.Since(began).Nanoseconds()) / 1e6
					s.mu.Lock()
					s.code[code]++
					s.lat = append(s.lat, took)
					s.mu.Unlock()
					if err != nil {
						s.err(err.Error())
					} else if code != want[op] {
						s.err(fmt.Sprintf("status %d: %.120s", code, b))
					}
					if at = at.Add(pause); time.Now().After(at) {
						at = time.Now()
					}
				}
			}()
		}
	}
	late := newStat()
	wg.Add(1)
	go func() {
		defer wg.Done()
		for time.Since(start) < *dur && ctx.Err() == nil {
			began := time.Now()
			time.Sleep(5 * time.Millisecond)
			late.lat = append(late.lat, float64(time.Since(began).Nanoseconds())/1e6-5)
		}
	}()
	wg.Wait()
	out := map[string]any{"op": "neighbour", "cpu_share": r3((selfCPU() - self0) / 1000 / time.Since(start).Seconds())}
	sort.Float64s(late.lat)
	out["late_p99_ms"] = r3(pct(late.lat, .99))
	for op, s := range stats {
		sort.Float64s(s.lat)
		out[op] = map[string]any{"n": len(s.lat), "p50_ms": r3(pct(s.lat, .5)), "p90_ms": r3(pct(s.lat, .9)), "p99_ms": r3(pct(s.lat, .99)),
			"max_ms": r3(pct(s.lat, 1)), "status": s.code, "errors": s.errs}
	}
	b, _ = json.Marshal(out)
	fmt.Println(string(b))
}
