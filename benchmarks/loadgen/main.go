// loadgen: a small load generator for Kubernetes-style API servers over plain net/http (no client-go, so no
// client-side rate limits). It prints one JSON object per run. It targets any base URL incl. a path prefix.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	base     = flag.String("base", "https://127.0.0.1:6443", "base URL, may have a path prefix, e.g. https://127.0.0.1:8443/clusters/x; several, separated by commas, are replicas, of which each worker takes one in turn")
	watchB   = flag.String("watch-base", "", "watch: base URLs of the watchers (default: those of -base)")
	token    = flag.String("token", "", "bearer token (or @file)")
	caFile   = flag.String("ca", "", "CA file")
	insecure = flag.Bool("insecure", false, "skip TLS verification")
	from     = flag.String("from", "", "the address to connect from")
	op       = flag.String("op", "get", "setup|seed|get|list|create|update|patch|apply|applycreate|delete|watch|deletecollection|raw|clusters|useclusters|firstanswer|crd|noise|neighbour")
	kind     = flag.String("kind", "configmap", "configmap|widget|logicalcluster (widget: a simple CRD's custom resource; logicalcluster: -base is the server's root cluster)")
	ns       = flag.String("ns", "bench", "namespace")
	prefix   = flag.String("prefix", "o", "object name prefix")
	packs    = flag.String("packs", "", "clusters, firstanswer: what they choose, as in core,-secrets (default: nothing, so the server's)")
	conc     = flag.Int("c", 1, "concurrency")
	count    = flag.Int("n", 1000, "number of operations (watch: number of objects written)")
	expect   = flag.Int("expect", -1, "list: expected number of items (-1: take the first answer's)")
	size     = flag.Int("size", 1024, "payload bytes in an object")
	httpV    = flag.Int("http", 1, "1 or 2")
	gz       = flag.Bool("gzip", false, "accept gzip, as client-go does")
	accept   = flag.String("accept", "application/json", "what answers are to be, as kubectl's application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	query    = flag.String("query", "", "extra query for get/list/raw, e.g. resourceVersion=0 or limit=500")
	path     = flag.String("path", "/version", "raw: path to GET")
	watchers = flag.Int("watchers", 1, "watch: number of watchers")
	rate     = flag.Float64("rate", 0, "watch: writes per second over all writers (0: as fast as they go)")
	dur      = flag.Duration("max-time", 120*time.Second, "stop starting operations after this long")
	pids     = flag.String("pids", "", "server processes for CPU/RSS: name=PID[+],...  ('+': with descendants)")
	label    = flag.String("label", "", "free text copied to the output")
	warm     = flag.Int("warm", 0, "operations before the clock starts (get/list/raw/patch/apply only)")
	noise    = flag.String("noise", "lists,bodies,watches,definitions", "noise: what the loud tenant does, of lists, bodies, watches, definitions, writes")
	bookmark = flag.Bool("bookmarks", false, "watch: allowWatchBookmarks")
	pageAll  = flag.Int("page", 0, "list: page size; an operation is then the whole list, page by page")
)

var payload string

// stopped is set by SIGTERM: no more operations begin, and those that were done are reported.
var stopped atomic.Bool

// replicas are the base URLs, watched those that watchers use; what a worker does goes to the one in its context.
var replicas, watched []string

type replicaKey struct{}

func onReplica(ctx context.Context, of []string, worker int) context.Context {
	return context.WithValue(ctx, replicaKey{}, of[worker%len(of)])
}

func baseOf(ctx context.Context) string {
	return ctx.Value(replicaKey{}).(string)
}

func split(urls string) (out []string) {
	for _, u := range strings.Split(urls, ",") {
		out = append(out, strings.TrimSuffix(u, "/"))
	}
	return
}

func client() *http.Client {
	tc := &tls.Config{InsecureSkipVerify: *insecure}
	if *caFile != "" {
		b, err := os.ReadFile(*caFile)
		die(err)
		p := x509.NewCertPool()
		p.AppendCertsFromPEM(b)
		tc.RootCAs = p
	}
	d := dialer()
	t := &http.Transport{TLSClientConfig: tc, DialContext: d.DialContext, MaxIdleConns: 0, MaxIdleConnsPerHost: 100000,
		DisableCompression: !*gz, TLSHandshakeTimeout: 60 * time.Second}
	if *httpV == 2 {
		t.ForceAttemptHTTP2 = true
	} else {
		t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Transport: t}
}

// dialer connects from the address -from, where one is named.
func dialer() *net.Dialer {
	d := &net.Dialer{Timeout: 30 * time.Second}
	if *from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(*from)}
	}
	return d
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(2)
	}
}

func coll(ctx context.Context) string {
	if *kind == "widget" {
		return baseOf(ctx) + "/apis/bench.peers.example/v1/namespaces/" + *ns + "/widgets"
	}
	if *kind == "logicalcluster" {
		return baseOf(ctx) + logicalClusters
	}
	return baseOf(ctx) + "/api/v1/namespaces/" + *ns + "/configmaps"
}

func kindName() string {
	if *kind == "widget" {
		return "Widget"
	}
	if *kind == "logicalcluster" {
		return "LogicalCluster"
	}
	return "ConfigMap"
}

func widget(name string, gen string) []byte {
	return []byte(`{"apiVersion":"bench.peers.example/v1","kind":"Widget","metadata":{"name":"` + name + `","labels":{"app":"bench"}},"spec":{"replicas":3,"gen":"` + gen + `","payload":"` + payload + `"}}`)
}

func object(name string, gen string) []byte {
	if *kind == "widget" {
		return widget(name, gen)
	}
	if *kind == "logicalcluster" {
		return logicalCluster(name)
	}
	return []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"` + name + `","labels":{"app":"bench"}},"data":{"gen":"` + gen + `","payload":"` + payload + `"}}`)
}

func patchBody(gen string) []byte {
	if *kind == "widget" {
		return []byte(`{"spec":{"gen":"` + gen + `"}}`)
	}
	return []byte(`{"data":{"gen":"` + gen + `"}}`)
}

type stat struct {
	mu   sync.Mutex
	lat  []float64
	errs map[string]int
	code map[int]int
	by   int64
}

func newStat() *stat { return &stat{errs: map[string]int{}, code: map[int]int{}} }

func (s *stat) err(m string) {
	if len(m) > 160 {
		m = m[:160]
	}
	s.mu.Lock()
	if len(s.errs) < 50 || s.errs[m] > 0 {
		s.errs[m]++
	} else {
		s.errs["(other)"]++
	}
	s.mu.Unlock()
}

func do(c *http.Client, ctx context.Context, method, url, ct string, body []byte) (int, []byte, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Accept", *accept)
	req.Header.Set("User-Agent", "loadgen")
	if *token != "" {
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	if ct != "" {
		req.Header.Set("Content-Type", ct)
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if resp.ContentLength > 0 {
		b.Grow(int(resp.ContentLength) + 512)
	}
	_, err = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.Bytes(), err
}

type meta struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	} `json:"items"`
	Message string `json:"message"`
}

func pct(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	i := int(p*float64(len(v))+0.5) - 1
	if i < 0 {
		i = 0
	}
	if i >= len(v) {
		i = len(v) - 1
	}
	return v[i]
}

func r6(f float64) float64 {
	x, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', 6, 64), 64)
	return x
}
func r3(f float64) float64 {
	x, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', 3, 64), 64)
	return x
}

// --- server CPU ---
type proc struct {
	name string
	pid  int
	tree bool
}

func parsePids() (out []proc) {
	if *pids == "" {
		return
	}
	for _, p := range strings.Split(*pids, ",") {
		n, v, ok := strings.Cut(p, "=")
		if !ok {
			n, v = "server", p
		}
		tree := strings.HasSuffix(v, "+")
		i, err := strconv.Atoi(strings.TrimSuffix(v, "+"))
		die(err)
		out = append(out, proc{n, i, tree})
	}
	return
}

func children() map[int][]int {
	m := map[int][]int{}
	fs, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range fs {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		i := bytes.LastIndexByte(b, ')')
		fl := strings.Fields(string(b[i+1:]))
		pp, _ := strconv.Atoi(fl[1])
		pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
		m[pp] = append(m[pp], pid)
	}
	return m
}

func procCPU(p proc) (ms float64, rssMB float64) {
	ids := []int{p.pid}
	if p.tree {
		ch := children()
		for i := 0; i < len(ids); i++ {
			ids = append(ids, ch[ids[i]]...)
		}
	}
	for _, id := range ids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
		if err != nil {
			continue
		}
		i := bytes.LastIndexByte(b, ')')
		f := strings.Fields(string(b[i+1:]))
		u, _ := strconv.ParseFloat(f[11], 64)
		s, _ := strconv.ParseFloat(f[12], 64)
		ms += (u + s) * 10
		st, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
		for _, l := range strings.Split(string(st), "\n") {
			if strings.HasPrefix(l, "VmRSS:") {
				k, _ := strconv.ParseFloat(strings.Fields(l)[1], 64)
				rssMB += k / 1024
			}
		}
	}
	return
}

func selfCPU() float64 {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Utime.Sec+ru.Stime.Sec)*1000 + float64(ru.Utime.Usec+ru.Stime.Usec)/1000
}

func main() {
	flag.Parse()
	if strings.HasPrefix(*token, "@") {
		b, err := os.ReadFile((*token)[1:])
		die(err)
		*token = strings.TrimSpace(string(b))
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	go func() {
		<-asked
		stopped.Store(true)
	}()
	replicas = split(*base)
	watched = replicas
	if *watchB != "" {
		watched = split(*watchB)
	}
	payload = strings.Repeat("x", *size)
	c := client()
	ctx := onReplica(context.Background(), replicas, 0)
	if *op == "setup" {
		setup(c, ctx)
		return
	}
	switch *op {
	case "noise":
		prepareWatches(c, ctx)
		noiseOf(ctx)
		return
	case "neighbour":
		neighbourOf(c, ctx)
		return
	}
	out := map[string]any{"op": *op, "kind": *kind, "http": *httpV, "c": *conc, "n": *count}
	if *label != "" {
		out["label"] = *label
	}
	if *query != "" {
		out["query"] = *query
	}
	if *gz {
		out["gzip"] = true
	}
	pr := parsePids()
	if *warm > 0 {
		s := newStat()
		n := *count
		*count = *warm
		runOps(c, ctx, s)
		*count = n
	}
	if *op != "watch" {
		connect(c, ctx)
	}
	cpu0 := map[string]float64{}
	for _, p := range pr {
		cpu0[p.name], _ = procCPU(p)
	}
	self0 := selfCPU()
	var ops float64
	s := newStat()
	each := map[string]func(*http.Client, context.Context, string) (int, error){
		"clusters": createCluster, "useclusters": useCluster, "firstanswer": firstAnswer, "crd": firstResource}[*op]
	if *op == "watch" {
		ops = runWatch(c, ctx, s, out)
	} else {
		for _, p := range pr {
			_, rss := procCPU(p)
			out["rss_before_mb_"+p.name] = r3(rss)
		}
		t0 := time.Now()
		if each != nil {
			runEach(c, ctx, s, each)
		} else {
			runOps(c, ctx, s)
		}
		el := time.Since(t0).Seconds()
		ops = float64(len(s.lat))
		out["seconds"] = r3(el)
		out["ops_s"] = r3(ops / el)
		out["mb_s"] = r3(float64(s.by) / 1e6 / el)
		out["bytes_op"] = int64(float64(s.by) / max(ops, 1))
		sort.Float64s(s.lat)
		out["p50_ms"], out["p99_ms"] = r3(pct(s.lat, .5)), r3(pct(s.lat, .99))
		if len(s.lat) > 0 {
			out["max_ms"] = r3(s.lat[len(s.lat)-1])
		}
	}
	ne := 0
	for _, v := range s.errs {
		ne += v
	}
	out["errors"] = ne
	if ne > 0 {
		out["error_kinds"] = s.errs
	}
	out["status"] = s.code
	var tot float64
	for _, p := range pr {
		m, rss := procCPU(p)
		d := m - cpu0[p.name]
		tot += d
		out["cpu_ms_op_"+p.name] = r6(d / max(ops, 1))
		out["rss_mb_"+p.name] = r3(rss)
	}
	if len(pr) > 0 {
		out["cpu_ms_op_server"] = r6(tot / max(ops, 1))
	}
	out["cpu_ms_op_loadgen"] = r6((selfCPU() - self0) / max(ops, 1))
	b, _ := json.Marshal(out)
	fmt.Println(string(b))
	if ne > 0 {
		os.Exit(1)
	}
}

// connect opens -c connections before the clock starts: with keep-alive a handshake is no part of an operation.
func connect(c *http.Client, ctx context.Context) {
	var wg sync.WaitGroup
	start := make(chan bool)
	for w := 0; w < *conc; w++ {
		wg.Add(1)
		go func(ctx context.Context) {
			defer wg.Done()
			<-start
			_, _, err := do(c, ctx, "GET", baseOf(ctx)+"/version", "", nil)
			die(err)
		}(onReplica(ctx, replicas, w))
	}
	close(start)
	wg.Wait()
}

func runOps(c *http.Client, ctx context.Context, s *stat) {
	var next int64 = -1
	var wg sync.WaitGroup
	end := time.Now().Add(*dur)
	gen := strconv.FormatInt(time.Now().UnixNano(), 36)
	for w := 0; w < *conc; w++ {
		wg.Add(1)
		go func(ctx context.Context) {
			defer wg.Done()
			first := true
			var lat []float64
			var by int64
			codes := map[int]int{}
			for {
				i := int(atomic.AddInt64(&next, 1))
				if i >= *count || stopped.Load() || time.Now().After(end) {
					break
				}
				t0 := time.Now()
				n, code, err := one(c, ctx, i, gen, &first)
				d := float64(time.Since(t0).Nanoseconds()) / 1e6
				codes[code]++
				by += int64(n)
				if err != nil {
					s.err(err.Error())
					continue
				}
				lat = append(lat, d)
			}
			s.mu.Lock()
			s.lat = append(s.lat, lat...)
			s.by += by
			for k, v := range codes {
				s.code[k] += v
			}
			s.mu.Unlock()
		}(onReplica(ctx, replicas, w))
	}
	wg.Wait()
}

var expectAtomic int64 = -2

func one(c *http.Client, ctx context.Context, i int, gen string, first *bool) (int, int, error) {
	name := *prefix + "-" + strconv.Itoa(i)
	u := coll(ctx)
	q := ""
	if *query != "" {
		q = "?" + *query
	}
	check := func(code, want int, b []byte, wantName string) error {
		if code != want && !(want == 201 && code == 200) {
			var m meta
			json.Unmarshal(b, &m)
			return fmt.Errorf("status %d: %s", code, m.Message)
		}
		if *first {
			*first = false
			var m meta
			if err := json.Unmarshal(b, &m); err != nil {
				return err
			}
			if m.Kind != kindName() || m.Metadata.Name != wantName || m.Metadata.ResourceVersion == "" {
				return fmt.Errorf("bad body: kind %q name %q", m.Kind, m.Metadata.Name)
			}
			return nil
		}
		if !bytes.Contains(b, []byte(`"`+wantName+`"`)) || !bytes.Contains(b, []byte(`"`+kindName()+`"`)) {
			return fmt.Errorf("bad body: no kind or name")
		}
		return nil
	}
	switch *op {
	case "raw":
		code, b, err := do(c, ctx, "GET", baseOf(ctx)+*path+q, "", nil)
		if err == nil && code/100 != 2 {
			err = fmt.Errorf("status %d", code)
		}
		return len(b), code, err
	case "get":
		name = *prefix + "-0"
		code, b, err := do(c, ctx, "GET", u+"/"+name+q, "", nil)
		if err == nil {
			err = check(code, 200, b, name)
		}
		return len(b), code, err
	case "list":
		total, items, cont := 0, 0, ""
		for {
			qq := *query
			if *pageAll > 0 {
				qq = strings.TrimPrefix(qq+"&limit="+strconv.Itoa(*pageAll), "&")
				if cont != "" {
					qq += "&continue=" + cont
				}
			}
			if qq != "" {
				qq = "?" + qq
			}
			code, b, err := do(c, ctx, "GET", u+qq, "", nil)
			total += len(b)
			if err == nil && code != 200 {
				err = fmt.Errorf("status %d", code)
			}
			if err != nil {
				return total, code, err
			}
			if *first || *pageAll > 0 {
				*first = false
				var m meta
				if err := json.Unmarshal(b, &m); err != nil {
					return total, code, err
				}
				if m.Kind == "Table" && *accept != "application/json" {
					items += bytes.Count(b, []byte(`"cells":`))
				} else if m.Kind != kindName()+"List" {
					return total, code, fmt.Errorf("bad kind %q", m.Kind)
				}
				items += len(m.Items)
				cont = m.Metadata.Continue
				if *pageAll > 0 && cont != "" {
					continue
				}
			} else {
				items = bytes.Count(b, []byte(`"uid":`))
			}
			want := int64(*expect)
			if want < 0 {
				if atomic.CompareAndSwapInt64(&expectAtomic, -2, int64(items)) {
					return total, code, nil
				}
				want = atomic.LoadInt64(&expectAtomic)
			}
			if int64(items) < want || int64(items) > want+2 { // +2: servers that add kube-root-ca.crt to each namespace
				return total, code, fmt.Errorf("list has %d items, want %d", items, want)
			}
			return total, code, nil
		}
	case "begin":
		return begin(c, ctx, u)
	case "create", "seed":
		code, b, err := do(c, ctx, "POST", u, "application/json", object(name, gen))
		if err == nil && code == 409 && *op == "seed" {
			return len(b), code, nil
		}
		if err == nil {
			err = check(code, 201, b, name)
		}
		return len(b), code, err
	case "update": // unconditional PUT (no resourceVersion); not all kinds allow it
		code, b, err := do(c, ctx, "PUT", u+"/"+name, "application/json", object(name, gen))
		if err == nil {
			err = check(code, 200, b, name)
		}
		return len(b), code, err
	case "patch":
		code, b, err := do(c, ctx, "PATCH", u+"/"+name, "application/merge-patch+json", patchBody(gen))
		if err == nil {
			err = check(code, 200, b, name)
		}
		return len(b), code, err
	case "apply", "applycreate":
		want := 200
		if *op == "applycreate" {
			want = 201
		}
		code, b, err := do(c, ctx, "PATCH", u+"/"+name+"?fieldManager=loadgen-apply&force=true", "application/apply-patch+yaml", object(name, gen))
		if err == nil {
			err = check(code, want, b, name)
		}
		return len(b), code, err
	case "delete":
		code, b, err := do(c, ctx, "DELETE", u+"/"+name, "", nil)
		if err == nil && code != 200 {
			var m meta
			json.Unmarshal(b, &m)
			err = fmt.Errorf("status %d: %s", code, m.Message)
		}
		return len(b), code, err
	case "deletecollection":
		code, b, err := do(c, ctx, "DELETE", u+q, "", nil)
		if err == nil && code != 200 {
			err = fmt.Errorf("status %d", code)
		}
		return len(b), code, err
	}
	die(fmt.Errorf("unknown op %s", *op))
	return 0, 0, nil
}

// A watch that begins with all there is, read up to the bookmark that says so.
func begin(c *http.Client, ctx context.Context, u string) (int, int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u += "?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=600"
	req, _ := http.NewRequestWithContext(ctx, "GET", u, nil)
	req.Header.Set("Accept", "application/json")
	if *token != "" {
		req.Header.Set("Authorization", "Bearer "+*token)
	}
	r, err := c.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 {
		return 0, r.StatusCode, fmt.Errorf("status %d", r.StatusCode)
	}
	total, events := 0, 0
	br := bufio.NewReaderSize(r.Body, 64<<10)
	beginning := true
	for {
		l, err := br.ReadSlice('\n')
		total += len(l)
		if err != nil && err != bufio.ErrBufferFull {
			return total, r.StatusCode, err
		}
		if beginning && bytes.HasPrefix(l, []byte(`{"type":"ADDED"`)) {
			events++
		}
		if bytes.Contains(l, []byte(`"k8s.io/initial-events-end"`)) {
			break
		}
		beginning = err == nil
	}
	if events < *expect {
		return total, r.StatusCode, fmt.Errorf("watch began with %d objects, want %d", events, *expect)
	}
	return total, r.StatusCode, nil
}

const crd = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets.bench.peers.example"},"spec":{"group":"bench.peers.example","names":{"kind":"Widget","listKind":"WidgetList","plural":"widgets","singular":"widget"},"scope":"Namespaced","versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","properties":{"replicas":{"type":"integer","minimum":0,"maximum":100},"gen":{"type":"string"},"payload":{"type":"string","maxLength":100000}}},"status":{"type":"object","properties":{"ready":{"type":"boolean"}}}}}}}]}}`

func setup(c *http.Client, ctx context.Context) {
	code, b, err := do(c, ctx, "POST", baseOf(ctx)+"/api/v1/namespaces", "application/json", []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"`+*ns+`"}}`))
	die(err)
	if code != 201 && code != 409 {
		die(fmt.Errorf("namespace: %d %s", code, b))
	}
	code, b, err = do(c, ctx, "POST", baseOf(ctx)+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "application/json", []byte(crd))
	die(err)
	if code != 201 && code != 409 {
		die(fmt.Errorf("crd: %d %s", code, b))
	}
	*kind = "widget"
	for i := 0; i < 200; i++ {
		code, _, err = do(c, ctx, "GET", coll(ctx), "", nil)
		if err == nil && code == 200 {
			fmt.Println(`{"op":"setup","ok":true}`)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	die(fmt.Errorf("widgets not served: %d %v", code, err))
}

func runWatch(c *http.Client, ctx context.Context, s *stat, out map[string]any) float64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	code, b, err := do(c, ctx, "GET", coll(ctx)+"?limit=1", "", nil)
	die(err)
	var m meta
	die(json.Unmarshal(b, &m))
	if code != 200 || m.Metadata.ResourceVersion == "" {
		die(fmt.Errorf("watch: list gave %d", code))
	}
	pfx := *prefix + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	N, W := *count, *watchers
	sent, resp := make([]int64, N), make([]int64, N)
	start := time.Now()
	now := func() int64 { return time.Since(start).Nanoseconds() }
	recv := make([][]int64, W)
	var ready, doneW sync.WaitGroup
	var delivered, dup, other int64
	ready.Add(W)
	doneW.Add(W)
	var last int64
	tOpen := time.Now()
	sem := make(chan bool, 64) // at most 64 watches being opened at once
	needle := []byte(`"name":"` + pfx + `-`)
	needle2 := []byte(`"name": "` + pfx + `-`)
	for w := 0; w < W; w++ {
		recv[w] = make([]int64, N)
		go func(ctx context.Context, w int) {
			defer doneW.Done()
			sem <- true
			u := coll(ctx) + "?watch=true&resourceVersion=" + m.Metadata.ResourceVersion + "&timeoutSeconds=600"
			if *bookmark {
				u += "&allowWatchBookmarks=true"
			}
			req, _ := http.NewRequestWithContext(ctx, "GET", u, nil)
			req.Header.Set("Accept", "application/json")
			if *token != "" {
				req.Header.Set("Authorization", "Bearer "+*token)
			}
			r, err := c.Do(req)
			<-sem
			if err != nil {
				s.err("watch open: " + err.Error())
				ready.Done()
				return
			}
			defer r.Body.Close()
			s.mu.Lock()
			s.code[r.StatusCode]++
			s.mu.Unlock()
			if r.StatusCode != 200 {
				s.err(fmt.Sprintf("watch open: status %d", r.StatusCode))
				ready.Done()
				return
			}
			ready.Done()
			br := bufio.NewReaderSize(r.Body, 8<<10)
			got := 0
			var acc []byte
			for got < N {
				acc = acc[:0]
				for {
					l, err := br.ReadSlice('\n')
					acc = append(acc, l...)
					if err == bufio.ErrBufferFull {
						continue
					}
					if err != nil {
						if ctx.Err() == nil {
							s.err("watch read: " + err.Error())
						}
						return
					}
					break
				}
				t := now()
				if w == 0 { // one watcher parses every event in full
					var ev struct {
						Type   string
						Object meta
					}
					if err := json.Unmarshal(acc, &ev); err != nil {
						s.err("watch json: " + err.Error())
						continue
					}
					if ev.Type == "BOOKMARK" {
						continue
					}
					if ev.Type != "ADDED" || ev.Object.Kind != kindName() {
						s.err("watch event " + ev.Type + " " + ev.Object.Kind)
						continue
					}
				}
				i := bytes.Index(acc, needle)
				l := len(needle)
				if i < 0 {
					i, l = bytes.Index(acc, needle2), len(needle2)
				}
				if i < 0 {
					atomic.AddInt64(&other, 1)
					continue
				}
				k := 0
				for j := i + l; j < len(acc) && acc[j] >= '0' && acc[j] <= '9'; j++ {
					k = k*10 + int(acc[j]-'0')
				}
				if k >= N || recv[w][k] != 0 {
					atomic.AddInt64(&dup, 1)
					continue
				}
				recv[w][k] = t
				got++
				atomic.AddInt64(&delivered, 1)
				for {
					o := atomic.LoadInt64(&last)
					if t <= o || atomic.CompareAndSwapInt64(&last, o, t) {
						break
					}
				}
			}
		}(onReplica(ctx, watched, w), w)
	}
	ready.Wait()
	out["watch_open_ms_each"] = r3(float64(time.Since(tOpen).Milliseconds()) / float64(W))
	var next int64 = -1
	var wg sync.WaitGroup
	cpu0 := map[string]float64{}
	for _, p := range parsePids() {
		cpu0[p.name], _ = procCPU(p)
	}
	t0 := now()
	for w := 0; w < *conc; w++ {
		wg.Add(1)
		go func(ctx context.Context) {
			defer wg.Done()
			for {
				i := int(atomic.AddInt64(&next, 1))
				if i >= N {
					return
				}
				if *rate > 0 {
					at := t0 + int64(float64(i) / *rate * 1e9)
					if d := at - now(); d > 0 {
						time.Sleep(time.Duration(d))
					}
				}
				sent[i] = now()
				code, b, err := do(c, ctx, "POST", coll(ctx), "application/json", object(pfx+"-"+strconv.Itoa(i), "w"))
				resp[i] = now()
				if err != nil {
					s.err(err.Error())
				} else if code != 201 {
					s.err(fmt.Sprintf("write status %d %.80s", code, b))
				}
				s.mu.Lock()
				s.code[code]++
				s.mu.Unlock()
			}
		}(onReplica(ctx, replicas, w))
	}
	wg.Wait()
	tw := now()
	fin := make(chan bool)
	go func() { doneW.Wait(); close(fin) }()
	select {
	case <-fin:
	case <-time.After(*dur):
		s.err("watch: not all events within max-time")
	}
	del := atomic.LoadInt64(&delivered)
	var fromSent, fromResp, wl []float64
	for i := 0; i < N; i++ {
		wl = append(wl, float64(resp[i]-sent[i])/1e6)
		for w := 0; w < W; w++ {
			if t := recv[w][i]; t != 0 {
				fromSent = append(fromSent, float64(t-sent[i])/1e6)
				fromResp = append(fromResp, float64(t-resp[i])/1e6)
			}
		}
	}
	sort.Float64s(fromSent)
	sort.Float64s(fromResp)
	sort.Float64s(wl)
	span := float64(atomic.LoadInt64(&last)-t0) / 1e9
	out["watchers"] = W
	out["rate"] = *rate
	out["seconds"] = r3(span)
	out["writes_s"] = r3(float64(N) / (float64(tw-t0) / 1e9))
	out["write_p50_ms"], out["write_p99_ms"] = r3(pct(wl, .5)), r3(pct(wl, .99))
	out["events"] = del
	out["missing"] = int64(W)*int64(N) - del
	out["dup"] = dup
	out["other_events"] = other
	out["events_s"] = r3(float64(del) / span)
	out["sent_p50_ms"], out["sent_p99_ms"] = r3(pct(fromSent, .5)), r3(pct(fromSent, .99))
	out["resp_p50_ms"], out["resp_p99_ms"] = r3(pct(fromResp, .5)), r3(pct(fromResp, .99))
	if len(fromSent) > 0 {
		out["sent_max_ms"] = r3(fromSent[len(fromSent)-1])
	}
	var d float64
	for _, p := range parsePids() {
		x, _ := procCPU(p)
		d += x - cpu0[p.name]
	}
	out["fanout_cpu_ms_per_event"] = r6(d / max(float64(del), 1))
	out["fanout_cpu_ms_per_write"] = r3(d / float64(N))
	if del != int64(W)*int64(N) {
		s.err("events missing")
	}
	return float64(N)
}
