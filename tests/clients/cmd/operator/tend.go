package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	metav1ac "k8s.io/client-go/applyconfigurations/meta/v1"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/util/retry"
)

const (
	gardenLabel = "day.example.com/garden"
	writtenBy   = "day.example.com/written" // TERM-COUNT of the write.
	finalizer   = "day.example.com/harvest"
	manager     = "gardener"
	ledger      = "ledger"
)

var gardenResource = schema.GroupVersionResource{Group: "day.example.com", Version: "v1", Resource: "gardens"}

var errDeposed = errors.New("a later leader has written this, or the lease is over")

// plan is what a garden is to have.
type plan struct {
	beds int64
	crop string
}

func planOf(garden *unstructured.Unstructured) plan {
	beds, _, _ := unstructured.NestedInt64(garden.Object, "spec", "beds")
	crop, _, _ := unstructured.NestedString(garden.Object, "spec", "crop")
	return plan{beds, crop}
}

// tend brings one garden nearer to what its spec says. An error: it is to be tried again.
func (g *gardener) tend(ctx context.Context, namespace, name string) error {
	found, exists, err := g.plots.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !exists {
		return err // What it had goes with it: the garbage collector sees to that.
	}
	garden := found.(*unstructured.Unstructured).DeepCopy()
	if garden.GetDeletionTimestamp() != nil {
		return g.harvest(ctx, garden)
	}
	if !has(garden.GetFinalizers(), finalizer) {
		garden.SetFinalizers(append(garden.GetFinalizers(), finalizer))
		if garden, err = g.update(ctx, garden); err != nil {
			return err
		}
	}
	wanted := planOf(garden)
	for bed := range wanted.beds {
		if err := g.bed(ctx, garden, bed, wanted.crop); err != nil {
			return err
		}
	}
	if err := g.clear(ctx, garden, wanted.beds); err != nil {
		return err
	}
	if err := g.sign(ctx, garden, wanted); err != nil {
		return err
	}
	return g.tell(ctx, garden, wanted)
}

// bed creates or mends the ConfigMap of one bed.
func (g *gardener) bed(ctx context.Context, garden *unstructured.Unstructured, number int64, crop string) error {
	client := g.client.CoreV1().ConfigMaps(garden.GetNamespace())
	name := fmt.Sprintf("%s-%d", garden.GetName(), number)
	wanted := map[string]string{"crop": crop, "bed": strconv.FormatInt(number, 10)}
	known, err := listers.NewConfigMapLister(g.beds.GetIndexer()).ConfigMaps(garden.GetNamespace()).Get(name)
	if apierrors.IsNotFound(err) {
		if g.expired() {
			return errDeposed
		}
		_, err = client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{gardenLabel: garden.GetName()},
			Annotations: map[string]string{writtenBy: g.stamp()}, OwnerReferences: []metav1.OwnerReference{ownedBy(garden)},
		}, Data: wanted}, metav1.CreateOptions{FieldManager: manager})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		if known, err = client.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if sameData(known.Data, wanted) && metav1.IsControlledBy(known, garden) && known.Labels[gardenLabel] == garden.GetName() {
			return nil
		}
		if !metav1.IsControlledBy(known, garden) && metav1.GetControllerOf(known) != nil {
			return fmt.Errorf("%s is still that of an earlier garden", name)
		}
		if g.expired() || g.laterThan(known.Annotations[writtenBy]) {
			return errDeposed
		}
		changed := known.DeepCopy()
		changed.Data = wanted
		changed.OwnerReferences = []metav1.OwnerReference{ownedBy(garden)}
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, writtenBy, g.stamp())
		metav1.SetMetaDataLabel(&changed.ObjectMeta, gardenLabel, garden.GetName())
		_, err := client.Update(ctx, changed, metav1.UpdateOptions{FieldManager: manager})
		if apierrors.IsConflict(err) {
			if known, err = client.Get(ctx, name, metav1.GetOptions{}); err == nil {
				return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, name, errors.New("read again"))
			}
		}
		return err
	})
}

// clear deletes the beds from a number on, each only as it was seen.
func (g *gardener) clear(ctx context.Context, garden *unstructured.Unstructured, from int64) error {
	known, err := listers.NewConfigMapLister(g.beds.GetIndexer()).ConfigMaps(garden.GetNamespace()).List(ofGarden(garden.GetName()))
	if err != nil {
		return err
	}
	for _, one := range known {
		number, err := strconv.ParseInt(strings.TrimPrefix(one.Name, garden.GetName()+"-"), 10, 64)
		if err != nil || number < from || one.DeletionTimestamp != nil {
			continue // The sign has no number.
		}
		if g.expired() || g.laterThan(one.Annotations[writtenBy]) {
			return errDeposed
		}
		seen := metav1.Preconditions{UID: &one.UID, ResourceVersion: &one.ResourceVersion}
		err = g.client.CoreV1().ConfigMaps(one.Namespace).Delete(ctx, one.Name, metav1.DeleteOptions{Preconditions: &seen})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// sign applies the garden's sign, whose note is somebody else's. It creates the first: an apply that is to find nothing
// cannot say so, and one that a deposed leader had under way would write over what its successor made.
func (g *gardener) sign(ctx context.Context, garden *unstructured.Unstructured, wanted plan) error {
	name := garden.GetName() + "-sign"
	text := fmt.Sprintf("%d beds of %s", wanted.beds, wanted.crop)
	client := g.client.CoreV1().ConfigMaps(garden.GetNamespace())
	known, err := listers.NewConfigMapLister(g.beds.GetIndexer()).ConfigMaps(garden.GetNamespace()).Get(name)
	if apierrors.IsNotFound(err) {
		if g.expired() {
			return errDeposed
		}
		_, err = client.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{gardenLabel: garden.GetName()},
			Annotations: map[string]string{writtenBy: g.stamp()}, OwnerReferences: []metav1.OwnerReference{ownedBy(garden)},
		}, Data: map[string]string{"text": text}}, metav1.CreateOptions{FieldManager: manager})
		return err
	} else if err != nil {
		return err
	}
	if known.Data["text"] == text && metav1.IsControlledBy(known, garden) {
		return nil
	}
	if !metav1.IsControlledBy(known, garden) && metav1.GetControllerOf(known) != nil {
		return fmt.Errorf("%s is still that of an earlier garden", name)
	}
	if g.expired() || g.laterThan(known.Annotations[writtenBy]) {
		return errDeposed
	}
	apply := corev1ac.ConfigMap(name, garden.GetNamespace()).WithLabels(map[string]string{gardenLabel: garden.GetName()}).
		WithData(map[string]string{"text": text}).WithAnnotations(map[string]string{writtenBy: g.stamp()}).
		WithOwnerReferences(metav1ac.OwnerReference().WithAPIVersion(garden.GetAPIVersion()).WithKind(garden.GetKind()).
			WithName(garden.GetName()).WithUID(garden.GetUID()).WithController(true).WithBlockOwnerDeletion(true))
	apply = apply.WithResourceVersion(known.ResourceVersion) // Only over what was seen.
	_, err = client.Apply(ctx, apply, metav1.ApplyOptions{FieldManager: manager, Force: true})
	return err
}

// tell writes the status, again and again where others write the same garden.
func (g *gardener) tell(ctx context.Context, garden *unstructured.Unstructured, wanted plan) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if planOf(garden) != wanted {
			return errors.New("the garden has changed in the meantime")
		}
		status, _, _ := unstructured.NestedMap(garden.Object, "status")
		if status["observedGeneration"] == garden.GetGeneration() && status["beds"] == wanted.beds {
			return nil
		}
		written, _ := status["written"].(string)
		if g.expired() || g.laterThan(written) {
			return errDeposed
		}
		garden.Object["status"] = map[string]any{
			"observedGeneration": garden.GetGeneration(), "beds": wanted.beds, "written": g.stamp(),
		}
		client := g.gardens.Namespace(garden.GetNamespace())
		_, err := client.UpdateStatus(ctx, garden, metav1.UpdateOptions{FieldManager: manager})
		if apierrors.IsConflict(err) {
			fresh, failed := client.Get(ctx, garden.GetName(), metav1.GetOptions{})
			if failed != nil {
				return failed
			}
			garden = fresh
		}
		return err
	})
}

// harvest takes away what a garden had, writes it down, and lets it go.
func (g *gardener) harvest(ctx context.Context, garden *unstructured.Unstructured) error {
	if !has(garden.GetFinalizers(), finalizer) {
		return nil
	}
	written, _, _ := unstructured.NestedString(garden.Object, "status", "written")
	if g.expired() || g.laterThan(written) {
		return errDeposed
	}
	beds := g.client.CoreV1().ConfigMaps(garden.GetNamespace())
	left, err := beds.List(ctx, metav1.ListOptions{LabelSelector: ofGarden(garden.GetName()).String(), Limit: 2})
	for err == nil {
		for _, one := range left.Items {
			gone := beds.Delete(ctx, one.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &one.UID}})
			if gone != nil && !apierrors.IsNotFound(gone) {
				return gone
			}
		}
		if left.Continue == "" {
			break
		}
		left, err = beds.List(ctx, metav1.ListOptions{
			LabelSelector: ofGarden(garden.GetName()).String(), Limit: 2, Continue: left.Continue})
	}
	if err != nil {
		return err
	}
	if err := g.note(ctx, garden); err != nil {
		return err
	}
	var kept []string
	for _, one := range garden.GetFinalizers() {
		if one != finalizer {
			kept = append(kept, one)
		}
	}
	garden.SetFinalizers(kept)
	_, err = g.update(ctx, garden)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// note adds a garden to the ledger that all workers write.
func (g *gardener) note(ctx context.Context, garden *unstructured.Unstructured) error {
	client := g.client.CoreV1().ConfigMaps("default")
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		book, err := client.Get(ctx, ledger, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if _, done := book.Data[string(garden.GetUID())]; done {
			return nil
		}
		if g.expired() || g.laterThan(book.Annotations[writtenBy]) {
			return errDeposed
		}
		if book.Data == nil {
			book.Data = map[string]string{}
		}
		book.Data[string(garden.GetUID())] = garden.GetNamespace() + "/" + garden.GetName()
		metav1.SetMetaDataAnnotation(&book.ObjectMeta, writtenBy, g.stamp())
		_, err = client.Update(ctx, book, metav1.UpdateOptions{FieldManager: manager})
		return err
	})
}

// update writes a garden as it was seen; a conflict is tried again with what the informer then has.
func (g *gardener) update(ctx context.Context, garden *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	written, _, _ := unstructured.NestedString(garden.Object, "status", "written")
	if g.expired() || g.laterThan(written) {
		return nil, errDeposed
	}
	return g.gardens.Namespace(garden.GetNamespace()).Update(ctx, garden, metav1.UpdateOptions{FieldManager: manager})
}

// stamp says in which term, and as which of its writes, something is written.
func (g *gardener) stamp() string { return fmt.Sprintf("%d-%d", g.term, g.writes.Add(1)) }

// laterThan says whether a stamp is of a later term than ours.
func (g *gardener) laterThan(stamp string) bool {
	term, err := strconv.Atoi(strings.SplitN(stamp, "-", 2)[0])
	return err == nil && term > g.term
}

func ownedBy(garden *unstructured.Unstructured) metav1.OwnerReference {
	return *metav1.NewControllerRef(garden, garden.GroupVersionKind())
}

func sameData(one, other map[string]string) bool {
	if len(one) != len(other) {
		return false
	}
	for key, value := range one {
		if other[key] != value {
			return false
		}
	}
	return true
}

func has(all []string, one string) bool {
	for _, each := range all {
		if each == one {
			return true
		}
	}
	return false
}
