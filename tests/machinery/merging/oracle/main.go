// Reads cases, a line of JSON each, and tells what structured-merge-diff makes of them: a schema, and the updates and
// applied configurations that one object goes through.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"sort"

	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

type step struct {
	Op      string          `json:"op"`
	Manager string          `json:"manager"`
	Force   bool            `json:"force"`
	Object  json.RawMessage `json:"object"`
}

type owned struct {
	Fields  json.RawMessage `json:"fields"`
	Applied bool            `json:"applied"`
}

type outcome struct {
	Object    interface{}      `json:"object"`
	Owners    map[string]owned `json:"owners"`
	Error     string           `json:"error,omitempty"`
	Conflicts []string         `json:"conflicts,omitempty"`
}

// One version: nothing to convert.
type same struct{}

func (same) Convert(o *typed.TypedValue, _ fieldpath.APIVersion) (*typed.TypedValue, error) { return o, nil }
func (same) IsMissingVersionError(error) bool                                               { return false }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// decoded reads JSON as an apiserver does: whole numbers are integers.
func decoded(raw json.RawMessage) interface{} {
	var v interface{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	must(d.Decode(&v))
	return settled(v)
}

func settled(v interface{}) interface{} {
	switch t := v.(type) {
	case json.Number:
		if i, err := t.Int64(); err == nil {
			return i
		}
		f, _ := t.Float64()
		return f
	case map[string]interface{}:
		for k := range t {
			t[k] = settled(t[k])
		}
	case []interface{}:
		for k := range t {
			t[k] = settled(t[k])
		}
	}
	return v
}

type object struct {
	kind     typed.ParseableType
	live     *typed.TypedValue
	managers fieldpath.ManagedFields
	updater  *merge.Updater
}

func (o *object) take(s step) (err error) {
	managers := fieldpath.ManagedFields{}
	for name, set := range o.managers {
		managers[name] = set
	}
	if s.Op == "update" {
		given, err := o.kind.FromUnstructured(decoded(s.Object), typed.AllowDuplicates)
		if err != nil {
			return err
		}
		live, managers, err := o.updater.Update(o.live, given, "v1", managers, s.Manager)
		if err == nil {
			o.live, o.managers = live, managers
		}
		return err
	}
	given, err := o.kind.FromUnstructured(decoded(s.Object))
	if err != nil {
		return err
	}
	live, managers, err := o.updater.Apply(o.live, given, "v1", managers, s.Manager, s.Force)
	if err != nil {
		return err
	}
	o.managers = managers
	if live != nil {
		o.live = live
	}
	return nil
}

func (o *object) outcome(err error) outcome {
	told := outcome{Object: o.live.AsValue().Unstructured(), Owners: map[string]owned{}}
	if conflicts, ok := err.(merge.Conflicts); ok {
		for _, c := range conflicts {
			told.Conflicts = append(told.Conflicts, fmt.Sprintf("%s %s", c.Manager, c.Path))
		}
		sort.Strings(told.Conflicts)
	} else if err != nil {
		told.Error = err.Error()
	}
	for name, set := range o.managers {
		fields, err := set.Set().ToJSON()
		must(err)
		told.Owners[name] = owned{fields, set.Applied()}
	}
	return told
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var c struct {
			Schema *spec.Schema `json:"schema"`
			Steps  []step       `json:"steps"`
		}
		must(json.Unmarshal(in.Bytes(), &c))
		types, err := schemaconv.ToSchemaFromOpenAPI(map[string]*spec.Schema{"T": c.Schema}, false)
		must(err)
		parser := typed.Parser{Schema: schema.Schema{Types: types.Types}}
		o := &object{kind: parser.Type("T"), managers: fieldpath.ManagedFields{}}
		o.live, err = o.kind.FromUnstructured(map[string]interface{}{})
		must(err)
		o.updater = (&merge.UpdaterBuilder{Converter: same{}}).BuildUpdater()
		told := []outcome{}
		for _, s := range c.Steps {
			told = append(told, o.outcome(o.take(s)))
		}
		must(out.Encode(told))
	}
}
