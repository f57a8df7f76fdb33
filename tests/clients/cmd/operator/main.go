// Command operator tends gardens: for a custom resource Garden it keeps a ConfigMap for every bed and one for the sign.
//
// It is written as operators with client-go are: a shared informer factory, a dynamic informer, a rate-limited queue,
// leader election with a Lease, retries on conflict, a finalizer, server-side apply, a status subresource. What it writes is
// stamped with the term of the leader that wrote it, so that the terms' effects can be told apart.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
)

const writeTimeout = 4 * time.Second

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	server := flag.String("server", "", "URL of the cluster")
	token := flag.String("token", "", "bearer token")
	identity := flag.String("identity", "", "name in the election")
	dump := flag.String("dump", "", "file for what the informers hold, written on SIGUSR1")
	resync := flag.Duration("resync", 0, "how often everything is looked at again")
	lease := flag.Duration("lease", 2*time.Second, "how long a lease holds, in whole seconds")
	renew := flag.Duration("renew", 1200*time.Millisecond, "how long a leader tries to renew it")
	retry := flag.Duration("retry", 200*time.Millisecond, "how often it tries")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go endWithParent(os.Getppid())

	reading := &rest.Config{Host: *server, BearerToken: *token, QPS: -1}
	writing := rest.CopyConfig(reading)
	writing.Timeout = writeTimeout
	gardener := newGardener(ctx, reading, writing, *resync)
	go gardener.dumpOnSignal(ctx, *dump)

	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: "default", Name: "gardener"},
		Client:     gardener.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: *identity},
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: *lease, RenewDeadline: *renew, RetryPeriod: *retry, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				record, _, err := lock.Get(leading)
				if err != nil || record.HolderIdentity != *identity {
					log.Fatalf("elected, and the lease does not say so: %v", err)
				}
				log.Printf("leading identity=%s term=%d", *identity, record.LeaderTransitions)
				gardener.lead(leading, record.LeaderTransitions)
			},
			OnStoppedLeading: func() {
				log.Printf("stopped identity=%s", *identity)
				os.Exit(1) // Whatever is under way ends with the process.
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// A lease that was not renewed in time is over for us before it is for others.
	gardener.expired = func() bool { return elector.Check(*renew-*lease) != nil || !elector.IsLeader() }
	elector.Run(ctx)
}

// endWithParent sees to it that nothing is left of a test that was killed.
func endWithParent(parent int) {
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	os.Exit(1)
}

// gardener has what both replicas have, leading or not: clients, and informers that follow the cluster.
type gardener struct {
	client  kubernetes.Interface
	gardens dynamic.NamespaceableResourceInterface
	beds    cache.SharedIndexInformer
	plots   cache.SharedIndexInformer
	queue   workqueue.TypedRateLimitingInterface[string]
	expired func() bool
	term    int
	writes  atomic.Int64
}

func newGardener(ctx context.Context, reading, writing *rest.Config, resync time.Duration) *gardener {
	g := &gardener{
		client:  kubernetes.NewForConfigOrDie(writing),
		gardens: dynamic.NewForConfigOrDie(writing).Resource(gardenResource),
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, 500*time.Millisecond)),
	}
	typed := informers.NewSharedInformerFactoryWithOptions(kubernetes.NewForConfigOrDie(reading), resync,
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = gardenLabel }))
	custom := dynamicinformer.NewDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(reading), resync)
	g.beds = typed.Core().V1().ConfigMaps().Informer()
	g.plots = custom.ForResource(gardenResource).Informer()
	g.beds.AddEventHandler(onChange(func(object metav1.Object) {
		g.queue.Add(object.GetNamespace() + "/" + object.GetLabels()[gardenLabel])
	}))
	g.plots.AddEventHandler(onChange(func(object metav1.Object) {
		g.queue.Add(object.GetNamespace() + "/" + object.GetName())
	}))
	typed.Start(ctx.Done())
	custom.Start(ctx.Done())
	return g
}

// onChange calls for an object that came, changed or went.
func onChange(call func(metav1.Object)) cache.ResourceEventHandlerFuncs {
	told := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		call(object.(metav1.Object))
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    told,
		UpdateFunc: func(_, object any) { told(object) },
		DeleteFunc: told,
	}
}

// lead works through the queue until the term is over.
func (g *gardener) lead(ctx context.Context, term int) {
	g.term = term
	if !cache.WaitForCacheSync(ctx.Done(), g.beds.HasSynced, g.plots.HasSynced) {
		return
	}
	for _, key := range g.plots.GetStore().ListKeys() {
		g.queue.Add(key)
	}
	for range 4 {
		go g.work(ctx)
	}
	<-ctx.Done()
	g.queue.ShutDown()
}

func (g *gardener) work(ctx context.Context) {
	for {
		key, over := g.queue.Get()
		if over {
			return
		}
		namespace, name, _ := strings.Cut(key, "/")
		if err := g.tend(ctx, namespace, name); err != nil {
			log.Printf("again key=%s error=%v", key, err)
			g.queue.AddRateLimited(key)
		} else {
			g.queue.Forget(key)
		}
		g.queue.Done(key)
	}
}

// dumpOnSignal writes what the informers hold, so that it can be compared with what the server has.
func (g *gardener) dumpOnSignal(ctx context.Context, path string) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		held := map[string]string{}
		for prefix, store := range map[string]cache.Store{"configmaps/": g.beds.GetStore(), "gardens/": g.plots.GetStore()} {
			for _, one := range store.List() {
				object := one.(metav1.Object)
				held[prefix+object.GetNamespace()+"/"+object.GetName()] = string(object.GetUID()) + " " + object.GetResourceVersion()
			}
		}
		text, err := json.Marshal(held)
		if err == nil {
			err = os.WriteFile(path+".part", text, 0o600)
		}
		if err == nil {
			err = os.Rename(path+".part", path)
		}
		if err != nil {
			log.Printf("dump error=%v", err)
		}
	}
}

// ofGarden selects what belongs to a garden.
func ofGarden(name string) labels.Selector {
	return labels.SelectorFromSet(labels.Set{gardenLabel: name})
}
