package main

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a logical cluster and a CRD cost to come into being. -base is the server's root cluster for `clusters` and
// `firstanswer` (…/clusters/root), any cluster for `crd`.

const logicalClusters = "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters"

func logicalCluster(name string) []byte {
	spec := "{}"
	if *packs != "" {
		spec = `{"packs":["` + strings.ReplaceAll(*packs, ",", `","`) + `"]}`
	}
	return []byte(`{"apiVersion":"tenancy.clusterling.io/v1alpha1","kind":"LogicalCluster","metadata":{"name":"` + name + `"},"spec":` + spec + `}`)
}

func createCluster(c *http.Client, ctx context.Context, name string) (int, error) {
	code, b, err := do(c, ctx, "POST", baseOf(ctx)+logicalClusters, "application/json", logicalCluster(name))
	if err == nil && code != 201 {
		err = fmt.Errorf("status %d: %.200s", code, b)
	}
	return code, err
}

// firstAnswer creates a cluster and asks it for its default namespace; the time runs from the one to the other's answer.
func firstAnswer(c *http.Client, ctx context.Context, name string) (int, error) {
	if code, err := createCluster(c, ctx, name); err != nil {
		return code, err
	}
	root := strings.TrimSuffix(baseOf(ctx), "/root")
	code, b, err := do(c, ctx, "GET", root+"/"+name+"/api/v1/namespaces/default", "", nil)
	if err == nil && code != 200 {
		err = fmt.Errorf("first request: status %d: %.200s", code, b)
	}
	return code, err
}

// useCluster gives a cluster what one has that is used: a token, and a ConfigMap.
func useCluster(c *http.Client, ctx context.Context, name string) (int, error) {
	code, b, err := do(c, ctx, "POST", baseOf(ctx)+logicalClusters+"/"+name+"/kubeconfig", "application/json", []byte("{}"))
	if err == nil && code != 201 {
		err = fmt.Errorf("kubeconfig: status %d: %.200s", code, b)
	}
	if err != nil {
		return code, err
	}
	root := strings.TrimSuffix(baseOf(ctx), "/root")
	code, b, err = do(c, ctx, "POST", root+"/"+name+"/api/v1/namespaces/default/configmaps", "application/json", object("used", "u"))
	if err == nil && code != 201 {
		err = fmt.Errorf("configmap: status %d: %.200s", code, b)
	}
	return code, err
}

// firstResource posts a CRD and then its first custom resource, again every millisecond until it is accepted.
func firstResource(c *http.Client, ctx context.Context, name string) (int, error) {
	group := name + ".bench.peers.example"
	definition := strings.ReplaceAll(crd, "bench.peers.example", group)
	code, b, err := do(c, ctx, "POST", baseOf(ctx)+"/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "application/json", []byte(definition))
	if err != nil || code != 201 {
		return code, fmt.Errorf("crd: status %d: %.200s %w", code, b, err)
	}
	body := []byte(strings.ReplaceAll(string(widget("first", "g")), "bench.peers.example", group))
	for until := time.Now().Add(*dur); ; {
		code, b, err = do(c, ctx, "POST", baseOf(ctx)+"/apis/"+group+"/v1/namespaces/default/widgets", "application/json", body)
		if err != nil || code == 201 {
			return code, err
		}
		if time.Now().After(until) {
			return code, fmt.Errorf("custom resource: status %d: %.200s", code, b)
		}
		time.Sleep(time.Millisecond)
	}
}

// runEach does -n of them, -c at a time, and reports their times.
func runEach(c *http.Client, ctx context.Context, s *stat, each func(*http.Client, context.Context, string) (int, error)) {
	var next int64 = -1
	var wg sync.WaitGroup
	for w := 0; w < *conc; w++ {
		wg.Add(1)
		go func(ctx context.Context) {
			defer wg.Done()
			for {
				i := int(atomic.AddInt64(&next, 1))
				if i >= *count {
					return
				}
				t0 := time.Now()
				code, err := each(c, ctx, *prefix+strconv.Itoa(i))
				took := float64(time.Since(t0).Nanoseconds()) / 1e6
				s.mu.Lock()
				s.code[code]++
				if err == nil {
					s.lat = append(s.lat, took)
				}
				s.mu.Unlock()
				if err != nil {
					s.err(err.Error())
				}
			}
		}(onReplica(ctx, replicas, w))
	}
	wg.Wait()
	sort.Float64s(s.lat)
}
