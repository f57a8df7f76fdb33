// Writes through etcd's API to a kine, in the form of transaction that kube-apiserver creates with.
// Prints one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var (
	endpoint = flag.String("endpoint", "", "kine's address, HOST:PORT")
	count    = flag.Int("n", 1000, "number of writes")
	inFlight = flag.Int("c", 16, "writes in flight")
	size     = flag.Int("size", 1024, "bytes of a value")
	prefix   = flag.String("prefix", "/registry/configmaps/bench/", "what the keys begin with")
	wait     = flag.Duration("wait", 30*time.Second, "how long to wait for the first answer")
)

var errRefused = errors.New("a transaction was refused")

func write(client *clientv3.Client, key, value string, at int64) (int64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", at)).
		Then(clientv3.OpPut(key, value)).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, err
	}
	if !answer.Succeeded {
		return 0, errRefused
	}
	return answer.Header.Revision, nil
}

func run() (map[string]any, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: *wait, Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for until := time.Now().Add(*wait); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err = client.Get(ctx, *prefix)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(until) {
			return nil, err
		}
	}
	value := strings.Repeat("x", *size)
	var next int64 = -1
	var workers sync.WaitGroup
	times := make([]float64, *count)
	failed := make(chan error, *inFlight)
	start := time.Now()
	for w := 0; w < *inFlight; w++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for {
				i := int(atomic.AddInt64(&next, 1))
				if i >= *count {
					return
				}
				began := time.Now()
				if _, err := write(client, *prefix+strconv.Itoa(i), value, 0); err != nil {
					failed <- err
					return
				}
				times[i] = float64(time.Since(began).Nanoseconds()) / 1e6
			}
		}()
	}
	workers.Wait()
	took := time.Since(start).Seconds()
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	sort.Float64s(times)
	return map[string]any{
		"op": "kine create", "c": *inFlight, "n": *count, "ops_s": float64(*count) / took,
		"p50_ms": times[*count/2], "p99_ms": times[*count*99/100],
	}, nil
}

func main() {
	flag.Parse()
	result, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kine load:", err)
		os.Exit(1)
	}
	out, _ := json.Marshal(result)
	fmt.Println(string(out))
}
