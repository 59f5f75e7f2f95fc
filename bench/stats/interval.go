package stats

import (
	"math"
	"slices"
)

// Interval is an estimate with its 95% confidence interval. Of one repeat there is
// no interval: Low and High are the estimate, and Repeats says it.
type Interval struct {
	Mid     float64 `json:"estimate"`
	Low     float64 `json:"low95"`
	High    float64 `json:"high95"`
	Repeats int     `json:"repeats"`
}

// Mean is the mean of repeats, with Student's interval.
func Mean(values []float64) Interval {
	n := len(values)
	if n == 0 {
		return Interval{}
	}
	var sum, squares float64
	for _, v := range values {
		sum += v
	}
	mid := sum / float64(n)
	for _, v := range values {
		squares += (v - mid) * (v - mid)
	}
	half := 0.0
	if n > 1 {
		half = student(n-1) * math.Sqrt(squares/float64(n-1)/float64(n))
	}
	return Interval{mid, mid - half, mid + half, n}
}

// Ratio is how many times as large a is as b, where a[i] and b[i] were measured one
// after the other: the geometric mean of the pairs' ratios, with Student's interval
// of their logarithms. What slows the machine for a pair falls out. Pairs with a
// value that is not above 0 are left out.
func Ratio(a, b []float64) Interval {
	var logs []float64
	for i := range min(len(a), len(b)) {
		if a[i] > 0 && b[i] > 0 {
			logs = append(logs, math.Log(a[i]/b[i]))
		}
	}
	if len(logs) == 0 {
		return Interval{}
	}
	m := Mean(logs)
	return Interval{math.Exp(m.Mid), math.Exp(m.Low), math.Exp(m.High), m.Repeats}
}

// Middle is the median of repeats, with the interval between two of them whose ranks
// have the true median between them in 95% of cases, whatever the distribution, if
// there are six or more (Conover, Practical nonparametric statistics, 3.2).
func Middle(values []float64) Interval {
	n := len(values)
	if n == 0 {
		return Interval{}
	}
	v := slices.Sorted(slices.Values(values))
	rank := max(int((float64(n)-1.96*math.Sqrt(float64(n)))/2), 0)
	return Interval{Median(values), v[rank], v[n-1-rank], n}
}

// Median is the middle value, or the mean of the two middle ones.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// quantiles are Student's 97.5% quantiles for 1 to 30 degrees of freedom. Source:
// NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
var quantiles = [...]float64{
	12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
	2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
	2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
}

// student is Student's 97.5% quantile; above 30 degrees by the first terms of its
// expansion about the normal one (Abramowitz and Stegun 26.7.5).
func student(freedom int) float64 {
	if freedom <= len(quantiles) {
		return quantiles[freedom-1]
	}
	const z = 1.959964
	f := float64(freedom)
	return z + (z*z*z+z)/(4*f) + (5*z*z*z*z*z+16*z*z*z+3*z)/(96*f*f)
}
