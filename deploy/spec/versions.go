package spec

import (
	"fmt"
	"math"
	"slices"
)

// versions checks the versions one by one and together. e has its defaults.
func (c *check) versions(e *Endpoint) {
	const path = "spec.versions"
	all := e.Spec.Versions
	switch {
	case len(all) == 0:
		c.fail(path, "is missing; an endpoint has 1 to %d versions", MaxVersions)
	case len(all) > MaxVersions:
		c.fail(fmt.Sprintf("%s[%d]", path, MaxVersions), "an endpoint has at most %d versions, and this has %d; remove %d",
			MaxVersions, len(all), len(all)-MaxVersions)
		all = all[:MaxVersions]
	}
	for i := range all {
		c.version(fmt.Sprintf("%s[%d]", path, i), &all[i])
	}
	c.names(path, e.Metadata.Name, all)
	c.sum(path, all)
	c.atMostOne(path+"[%d].default", "default", all, func(v *Version) bool { return v.Default })
	c.atMostOne(path+"[%d].type", "control", all, func(v *Version) bool { return v.Type == Control })
}

// version checks what one version says of itself.
func (c *check) version(path string, v *Version) {
	c.name(path+".name", v.Name)
	switch {
	case v.Upstream != nil:
		c.upstream(path, v)
	case !c.source.isFaulty(path + ".upstream"):
		c.model(path+".model", v.Model)
	}
	if !twoDecimals(v.TrafficPercentile) {
		c.fail(path+".trafficPercentile", "is %s; must have at most two decimals", number(v.TrafficPercentile))
	}
	if !isLabel(string(v.Accelerator)) {
		c.fail(path+".accelerator", "is %s; must be the name of a kind of device, such as auto, cpu or cuda", quote(string(v.Accelerator)))
	}
	c.batching(path+".batching", v.Batching)
	c.scaling(path, v)
	c.resources(join(path, "containerResourceRequirements"), &v.ContainerResourceRequirements)
}

func (c *check) model(path, model string) {
	if model == "" {
		c.fail(path, "is missing; give the path of an .onnx file, or an upstream")
		return
	}
	switch ref, err := ParseModel(model); {
	case err != nil:
		c.fail(path, "%s", err)
	case ref.Path == "" && !c.registry:
		c.fail(path, "%s is a registered model, and there is no registry to take it from; give the path of an .onnx file", quote(model))
	}
}

// twoDecimals reports whether x is a whole number of basis points. A decimal with
// at most two places is the float nearest to a whole number over 100, and so is
// what the division gives: both are rounded correctly.
func twoDecimals(x float64) bool {
	if math.Abs(x) > 100 || math.IsNaN(x) {
		return true // out of range, which is another finding
	}
	return math.Round(x*100)/100 == x
}

// names checks that a version's name is its own.
func (c *check) names(path, endpoint string, all []Version) {
	first := make(map[string]int)
	for i := range all {
		at, name := fmt.Sprintf("%s[%d].name", path, i), all[i].Name
		if name == "" {
			continue
		}
		if name == endpoint {
			c.fail(at, "%s is the name of the endpoint; a version needs a name of its own", quote(name))
		}
		if j, again := first[name]; again {
			c.fail(at, "%s is already the name of versions[%d]; rename one", quote(name), j)
			continue
		}
		first[name] = i
	}
}

// sum checks that the percentiles claim no more than there is, in basis points,
// which are exact.
func (c *check) sum(path string, all []Version) {
	const whole = 100_00
	sum, last := 0, 0
	for i := range all {
		p := all[i].TrafficPercentile
		if !(p >= 0 && p <= 100) {
			return // out of range, which is another finding
		}
		if p > 0 {
			last = i
		}
		sum += all[i].BasisPoints()
	}
	if sum > whole {
		c.fail(fmt.Sprintf("%s[%d].trafficPercentile", path, last), "with this the percentiles sum to %s, more than 100; lower some",
			number(float64(sum)/100))
	}
}

// atMostOne checks that one version at most is what is said in the field at path,
// where %d stands for the version's index.
func (c *check) atMostOne(path, what string, all []Version, is func(*Version) bool) {
	first := -1
	for i := range all {
		switch {
		case !is(&all[i]):
		case first < 0:
			first = i
		default:
			c.fail(fmt.Sprintf(path, i), "versions[%d] is the %s already; an endpoint has at most one", first, what)
		}
	}
}

// scaling checks that the number of replicas is either given or decided by load.
// v has its defaults; path is "" where its fields are those of the whole document.
func (c *check) scaling(path string, v *Version) {
	a, at := &v.AutoScaler, join(path, "autoScaler")
	on := *a.AutoscaleEnabled
	switch {
	case on && v.NumReplicas != 0:
		c.fail(join(path, "numReplicas"), "is given while the autoscaler is on; remove it, or set autoScaler.autoscaleEnabled: false")
	case !on && v.NumReplicas == 0:
		c.fail(at+".autoscaleEnabled", "is false without numReplicas; give numReplicas, or turn it on")
	}
	if !on && *a != (AutoScaler{AutoscaleEnabled: a.AutoscaleEnabled}) {
		c.fail(at, "has numbers while the autoscaler is off; remove them, or set autoscaleEnabled: true and remove numReplicas")
	}
	if on && a.MinReplicas > a.MaxReplicas {
		c.fail(at+".minReplicas", "is %d, more than maxReplicas, which is %d; lower it, or raise maxReplicas", a.MinReplicas, a.MaxReplicas)
	}
}

// resources checks that limits are not below what is reserved. r has its defaults.
func (c *check) resources(path string, r *ContainerResourceRequirements) {
	if r.CPULimit > 0 && r.CPULimit < r.CPU {
		c.fail(path+".cpuLimit", "is %s, less than cpu, which is %s; raise it", number(r.CPULimit), number(r.CPU))
	}
	if r.MemoryInGBLimit > 0 && r.MemoryInGBLimit < r.MemoryInGB {
		c.fail(path+".memoryInGBLimit", "is %s, less than memoryInGB, which is %s; raise it", number(r.MemoryInGBLimit), number(r.MemoryInGB))
	}
}

// sortedKeys is the keys of m in order, so that findings have one.
func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
