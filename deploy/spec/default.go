package spec

import "cmp"

// Default fills in what was left out. Doing it again changes nothing.
func (e *Endpoint) Default() {
	e.Spec.Auth.Mode = cmp.Or(e.Spec.Auth.Mode, AuthKey)
	e.Spec.Limits.BurstSeconds = cmp.Or(e.Spec.Limits.BurstSeconds, 1)
	if m := &e.Spec.Mirror; m.To != "" {
		m.MaxConcurrent = cmp.Or(m.MaxConcurrent, 2)
		m.MaxQueued = cmp.Or(m.MaxQueued, 64)
		m.MaxBodyBytes = cmp.Or(m.MaxBodyBytes, 256<<10)
	}
	e.Spec.Auth.setDefaults()
	e.Spec.CORS.setDefaults()
	e.Spec.Split.Fallback = cmp.Or(e.Spec.Split.Fallback, FallbackNone)
	chosen := false
	for i := range e.Spec.Versions {
		v := &e.Spec.Versions[i]
		v.setDefaults()
		chosen = chosen || v.Default
	}
	if !chosen && len(e.Spec.Versions) > 0 {
		e.Spec.Versions[0].Default = true
	}
}

// setDefaults makes the tokens of a mode that takes them those of the house, where
// nothing else is said.
func (a *Auth) setDefaults() {
	if a.Mode == AuthToken && a.Token == nil {
		a.Token = &Token{}
	}
	t := a.Token
	if t == nil {
		return
	}
	t.ClockSkewSeconds = cmp.Or(t.ClockSkewSeconds, 60)
	if t.Own() {
		t.MaxLifetimeSeconds = cmp.Or(t.MaxLifetimeSeconds, 3600)
	}
}

// setDefaults fills in Azure ML's defaults, but for the concurrency.
func (v *Version) setDefaults() {
	v.Accelerator = cmp.Or(v.Accelerator, AcceleratorAuto)
	v.MaxQueueWaitMs = cmp.Or(v.MaxQueueWaitMs, 500)
	v.ScoringTimeoutMs = cmp.Or(v.ScoringTimeoutMs, 60_000)
	if v.Upstream != nil {
		v.Upstream = v.Upstream.defaulted()
	}
	v.AutoScaler.setDefaults(v.NumReplicas)
	r := &v.ContainerResourceRequirements
	r.CPU = cmp.Or(r.CPU, 0.1)
	r.MemoryInGB = cmp.Or(r.MemoryInGB, 0.5)
	p := &v.LivenessProbeRequirements
	p.InitialDelaySeconds = cmp.Or(p.InitialDelaySeconds, 310)
	p.PeriodSeconds = cmp.Or(p.PeriodSeconds, 10)
	p.TimeoutSeconds = cmp.Or(p.TimeoutSeconds, 2)
	p.SuccessThreshold = cmp.Or(p.SuccessThreshold, 1)
	p.FailureThreshold = cmp.Or(p.FailureThreshold, 3)
}

// setDefaults turns the autoscaler on where the replicas are not numbered. One
// that is off has no numbers, so it gets none.
func (a *AutoScaler) setDefaults(numReplicas int) {
	if a.AutoscaleEnabled == nil {
		on := numReplicas == 0
		a.AutoscaleEnabled = &on
	}
	if !*a.AutoscaleEnabled {
		return
	}
	a.MinReplicas = cmp.Or(a.MinReplicas, 1)
	a.MaxReplicas = cmp.Or(a.MaxReplicas, max(10, a.MinReplicas))
	a.RefreshPeriodInSeconds = cmp.Or(a.RefreshPeriodInSeconds, 1)
	a.TargetUtilization = cmp.Or(a.TargetUtilization, 70)
}

// defaulted is a copy of e with the defaults in it. It shares what Default does
// not change.
func (e *Endpoint) defaulted() *Endpoint {
	d := *e
	d.Spec.Versions = append([]Version(nil), e.Spec.Versions...)
	if e.Spec.Auth.Token != nil {
		t := *e.Spec.Auth.Token
		d.Spec.Auth.Token = &t
	}
	if e.Spec.CORS != nil {
		c := *e.Spec.CORS
		d.Spec.CORS = &c
	}
	d.Default()
	return &d
}
