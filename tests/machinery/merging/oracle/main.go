// Reads cases, a line of JSON each, and tells what structured-merge-diff makes of them: a schema, and the updates and
// applied configurations that one object goes through.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"

	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/merge"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

type step struct {
	Op      string                  `json:"op"`
	Manager string                  `json:"manager"`
	Version string                  `json:"version"`
	Force   bool                    `json:"force"`
	Object  json.RawMessage         `json:"object"`
	Schemas map[string]*spec.Schema `json:"schemas"`
	Served  []string                `json:"served"`
}

type owned struct {
	Fields  json.RawMessage `json:"fields"`
	Applied bool            `json:"applied"`
	Version string          `json:"version,omitempty"`
}

type outcome struct {
	Object    interface{}      `json:"object"`
	Owners    map[string]owned `json:"owners"`
	Error     string           `json:"error,omitempty"`
	Conflicts []string         `json:"conflicts,omitempty"`
	Applied   interface{}      `json:"applied,omitempty"`
}

// A case: the schema of each version ("" for all others), and what befalls an object. `renames`: converting gives fields
// whose names end in a version the one that is converted to; `needs`: a field without which a version is not made.
type life struct {
	Schemas map[string]*spec.Schema    `json:"schemas"`
	Renames bool                       `json:"renames"`
	Needs   map[string]string          `json:"needs"`
	Ignored map[string]json.RawMessage `json:"ignored"`
	Steps   []step                     `json:"steps"`
}

var errMissing = errors.New("there is no such version")

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
	life
	types    map[string]typed.ParseableType
	served   []string
	version  string
	live     *typed.TypedValue
	managers fieldpath.ManagedFields
	updater  *merge.Updater
}

func parsed(schemas map[string]*spec.Schema) map[string]typed.ParseableType {
	found := map[string]typed.ParseableType{}
	for version, s := range schemas {
		types, err := schemaconv.ToSchemaFromOpenAPI(map[string]*spec.Schema{"T" + version: s}, false)
		must(err)
		parser := typed.Parser{Schema: schema.Schema{Types: types.Types}}
		found[version] = parser.Type("T" + version)
	}
	return found
}

func (o *object) kind(version string) typed.ParseableType {
	if kind, ok := o.types[version]; ok {
		return kind
	}
	if _, ok := o.Schemas[version]; ok {
		o.types[version] = parsed(map[string]*spec.Schema{version: o.Schemas[version]})[version]
		return o.types[version]
	}
	// A type of its own for each version, so that a value tells which it is of.
	o.types[version] = parsed(map[string]*spec.Schema{version: o.Schemas[""]})[version]
	return o.types[version]
}

func (o *object) IsMissingVersionError(err error) bool { return err == errMissing }

func (o *object) Convert(v *typed.TypedValue, version fieldpath.APIVersion) (*typed.TypedValue, error) {
	if o.served != nil && !contains(o.served, string(version)) {
		return nil, errMissing
	}
	if *v.TypeRef().NamedType == "T"+string(version) {
		return v, nil
	}
	return o.convert(v, string(version))
}

// convert makes a value of another version, and reads it as strictly as what is applied: as an apiserver does.
func (o *object) convert(v *typed.TypedValue, version string, how ...typed.ValidationOptions) (*typed.TypedValue, error) {
	made := v.AsValue().Unstructured()
	if o.Renames {
		made = renamed(made, version)
	}
	if needed := o.Needs[version]; needed != "" {
		if m, ok := made.(map[string]interface{}); !ok || m[needed] == nil {
			return nil, fmt.Errorf("%s is needed", needed)
		}
	}
	return o.kind(version).FromUnstructured(made, how...)
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

var suffix = regexp.MustCompile(`_v\d+$`)

func renamed(v interface{}, version string) interface{} {
	switch t := v.(type) {
	case map[string]interface{}:
		made := map[string]interface{}{}
		for k, one := range t {
			made[suffix.ReplaceAllString(k, "_"+version)] = renamed(one, version)
		}
		return made
	case []interface{}:
		made := []interface{}{}
		for _, one := range t {
			made = append(made, renamed(one, version))
		}
		return made
	}
	return v
}

func (o *object) take(s step, told *outcome) (err error) {
	if s.Schemas != nil {
		o.Schemas, o.types = s.Schemas, map[string]typed.ParseableType{}
		o.live, err = o.kind(o.version).FromUnstructured(o.live.AsValue().Unstructured(), typed.AllowDuplicates)
		return err
	}
	if s.Served != nil {
		o.served = s.Served
		return nil
	}
	managers := fieldpath.ManagedFields{}
	for name, set := range o.managers {
		managers[name] = set
	}
	version := fieldpath.APIVersion(s.Version)
	kind := o.kind(s.Version)
	live, err := o.convert(o.live, s.Version, typed.AllowDuplicates)
	if err != nil {
		return err
	}
	o.live, o.version = live, s.Version
	if s.Op == "update" {
		given, err := kind.FromUnstructured(decoded(s.Object), typed.AllowDuplicates)
		if err != nil {
			return err
		}
		live, managers, err := o.updater.Update(live, given, version, managers, s.Manager)
		if err == nil {
			o.live, o.managers = live, managers
		}
		return err
	}
	given, err := kind.FromUnstructured(decoded(s.Object))
	if err != nil {
		return err
	}
	if s.Op == "extract" {
		// What a client does that reads back what it owns, and applies that with more: typed, ExtractItems.
		if mine := managers[s.Manager]; mine != nil {
			extracted := live.ExtractItems(mine.Set().Leaves(), typed.WithAppendKeyFields())
			if given, err = extracted.Merge(given); err != nil {
				return err
			}
		}
		told.Applied = given.AsValue().Unstructured()
	}
	live, managers, err = o.updater.Apply(live, given, version, managers, s.Manager, s.Force)
	if err != nil {
		return err
	}
	o.managers = managers
	if live != nil {
		o.live = live
	}
	return nil
}

func (o *object) outcome(s step) outcome {
	told := outcome{Owners: map[string]owned{}}
	err := o.take(s, &told)
	told.Object = o.live.AsValue().Unstructured()
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
		told.Owners[name] = owned{fields, set.Applied(), string(set.APIVersion())}
	}
	return told
}

func lived(c life) []outcome {
	o := &object{life: c, types: map[string]typed.ParseableType{}, managers: fieldpath.ManagedFields{}}
	filters := map[fieldpath.APIVersion]fieldpath.Filter{}
	for version, raw := range c.Ignored {
		filters[fieldpath.APIVersion(version)] = fieldpath.NewExcludeSetFilter(set(raw))
	}
	var err error
	o.version = "v1"
	for _, s := range c.Steps {
		if s.Version != "" {
			o.version = s.Version
			break
		}
	}
	o.live, err = o.kind(o.version).FromUnstructured(map[string]interface{}{})
	must(err)
	o.updater = (&merge.UpdaterBuilder{Converter: o, IgnoreFilter: filters}).BuildUpdater()
	told := []outcome{}
	for _, s := range c.Steps {
		told = append(told, o.outcome(s))
	}
	return told
}

func main() {
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<26)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var what struct {
			Walks *walks `json:"walks"`
			Sets  *sets  `json:"sets"`
		}
		must(json.Unmarshal(in.Bytes(), &what))
		switch {
		case what.Walks != nil:
			must(out.Encode(what.Walks.told()))
		case what.Sets != nil:
			must(out.Encode(what.Sets.told()))
		default:
			var c life
			must(json.Unmarshal(in.Bytes(), &c))
			must(out.Encode(lived(c)))
		}
	}
}
