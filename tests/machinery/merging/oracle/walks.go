package main

import (
	"bytes"
	"encoding/json"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// What each walk over a type makes of values: their fields, what is wrong with them, what becomes of pairs of them, what
// is left without some fields, and what sets become that another schema made.
type walks struct {
	Schema  *spec.Schema      `json:"schema"`
	Before  *spec.Schema      `json:"before"`
	Values  []json.RawMessage `json:"values"`
	Pairs   [][2]int          `json:"pairs"`
	Removed []struct {
		Value  int             `json:"value"`
		Fields json.RawMessage `json:"fields"`
	} `json:"removed"`
	Reconciled []json.RawMessage `json:"reconciled"`
}

type pair struct {
	Added    json.RawMessage `json:"added,omitempty"`
	Modified json.RawMessage `json:"modified,omitempty"`
	Removed  json.RawMessage `json:"removed,omitempty"`
	Merged   interface{}     `json:"merged"`
	Error    string          `json:"error,omitempty"`
}

type toldWalks struct {
	Valid      []string          `json:"valid"`
	Fields     []json.RawMessage `json:"fields"`
	Pairs      []pair            `json:"pairs"`
	Removed    []interface{}     `json:"removed"`
	Reconciled []json.RawMessage `json:"reconciled"`
}

func set(raw json.RawMessage) *fieldpath.Set {
	found := fieldpath.NewSet()
	must(found.FromJSON(bytes.NewReader(raw)))
	return found
}

func written(s *fieldpath.Set) json.RawMessage {
	if s == nil || s.Empty() {
		return nil
	}
	raw, err := s.ToJSON()
	must(err)
	return raw
}

func (w *walks) told() toldWalks {
	kind := parsed(map[string]*spec.Schema{"": w.Schema})[""]
	told := toldWalks{Valid: []string{}, Fields: []json.RawMessage{}, Pairs: []pair{}, Removed: []interface{}{}, Reconciled: []json.RawMessage{}}
	values := []*typed.TypedValue{}
	for _, raw := range w.Values {
		strict, err := kind.FromUnstructured(decoded(raw))
		loose, again := kind.FromUnstructured(decoded(raw), typed.AllowDuplicates)
		switch {
		case err == nil:
			told.Valid = append(told.Valid, "")
		case again == nil:
			told.Valid = append(told.Valid, "but for duplicates: "+err.Error())
		default:
			told.Valid = append(told.Valid, err.Error())
		}
		_ = strict
		values = append(values, loose)
		var fields json.RawMessage
		if again == nil {
			s, err := loose.ToFieldSet()
			must(err)
			fields = written(s)
		}
		told.Fields = append(told.Fields, fields)
	}
	for _, two := range w.Pairs {
		one := pair{}
		left, right := values[two[0]], values[two[1]]
		if changed, err := left.Compare(right); err != nil {
			one.Error = err.Error()
		} else {
			one.Added, one.Modified, one.Removed = written(changed.Added), written(changed.Modified), written(changed.Removed)
		}
		if merged, err := left.Merge(right); err != nil {
			one.Error = err.Error()
		} else {
			one.Merged = merged.AsValue().Unstructured()
		}
		told.Pairs = append(told.Pairs, one)
	}
	for _, one := range w.Removed {
		left := values[one.Value].RemoveItems(set(one.Fields))
		told.Removed = append(told.Removed, left.AsValue().Unstructured())
	}
	for _, raw := range w.Reconciled {
		v, err := kind.FromUnstructured(map[string]interface{}{})
		must(err)
		changed, err := typed.ReconcileFieldSetWithSchema(set(raw), v)
		must(err)
		if changed == nil {
			changed = set(raw)
		}
		told.Reconciled = append(told.Reconciled, written(changed))
	}
	return told
}

// What becomes of sets of fields, two by two, and how they are read and written.
type sets struct {
	Sets  []json.RawMessage `json:"sets"`
	Texts []string          `json:"texts"`
}

type toldSets struct {
	Union      [][]json.RawMessage `json:"union"`
	Both       [][]json.RawMessage `json:"both"`
	Difference [][]json.RawMessage `json:"difference"`
	Below      [][]json.RawMessage `json:"below"`
	Paths      [][]string          `json:"paths"`
	Read       []interface{}       `json:"read"`
}

func (g *sets) told() toldSets {
	told := toldSets{}
	for _, a := range g.Sets {
		one, rows := set(a), [4][]json.RawMessage{}
		for _, b := range g.Sets {
			other := set(b)
			rows[0] = append(rows[0], written(one.Union(other)))
			rows[1] = append(rows[1], written(one.Intersection(other)))
			rows[2] = append(rows[2], written(one.Difference(other)))
			rows[3] = append(rows[3], written(one.RecursiveDifference(other)))
		}
		told.Union, told.Both = append(told.Union, rows[0]), append(told.Both, rows[1])
		told.Difference, told.Below = append(told.Difference, rows[2]), append(told.Below, rows[3])
		paths := []string{}
		one.Iterate(func(p fieldpath.Path) { paths = append(paths, p.String()) })
		told.Paths = append(told.Paths, paths)
	}
	for _, text := range g.Texts {
		found := fieldpath.NewSet()
		if err := found.FromJSON(bytes.NewReader([]byte(text))); err != nil {
			told.Read = append(told.Read, nil)
			continue
		}
		raw, err := found.ToJSON()
		must(err)
		told.Read = append(told.Read, string(raw))
	}
	return told
}
