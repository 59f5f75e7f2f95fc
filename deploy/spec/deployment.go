package spec

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// DeploymentConfig is what Azure ML's deployment configuration says.
type DeploymentConfig struct {
	ComputeType string  // in lower case: aks, aksendpoint, aci or local
	Namespace   string  // empty for the default
	Auth        Auth    // the mode is set
	Version     Version // without name, model and traffic; what was left out is zero, so that flags can be set over it
}

// deploymentFile is deploymentconfig.json of Azure ML's CLI v1, in its own names.
type deploymentFile struct {
	ComputeType string `json:"computeType"`
	Namespace   string `json:"namespace"`

	AuthEnabled      *bool `json:"authEnabled"`
	TokenAuthEnabled *bool `json:"tokenAuthEnabled"`
	Keys             struct {
		PrimaryKey   string `json:"primaryKey"`
		SecondaryKey string `json:"secondaryKey"`
	} `json:"keys"`

	GPUCores                          int  `json:"gpuCores" jsonschema:"minimum=0"`
	NumReplicas                       int  `json:"numReplicas" jsonschema:"minimum=0"` // 0 as not given: so its documentation
	MaxConcurrentRequestsPerContainer int  `json:"maxConcurrentRequestsPerContainer" jsonschema:"minimum=1"`
	MaxQueueWaitMs                    int  `json:"maxQueueWaitMs" jsonschema:"minimum=1"`
	ScoringTimeoutMs                  int  `json:"scoringTimeoutMs" jsonschema:"minimum=1,maximum=300000"`
	AppInsightsEnabled                bool `json:"appInsightsEnabled"`

	AutoScaler                    AutoScaler                    `json:"autoScaler"`
	ContainerResourceRequirements ContainerResourceRequirements `json:"containerResourceRequirements"`
	LivenessProbeRequirements     LivenessProbeRequirements     `json:"livenessProbeRequirements"`
	DataCollection                DataCollection                `json:"dataCollection"`
}

// DecodeDeploymentConfig reads Azure ML's deploymentconfig.json, or the same as
// YAML, for AKS, ACI or local services. Fields that it does not know are warnings;
// wrong types and values, and broken rules between values, are findings. It is nil
// if nothing could be read.
//
// AKS services have key authentication unless they say otherwise; those on ACI and
// local ones have none.
func DecodeDeploymentConfig(name string, data []byte) (*DeploymentConfig, Findings) {
	r := newReport(name)
	roots := r.documents(data)
	if len(roots) != 1 {
		if r.count == 0 {
			r.add(Finding{File: name, Message: fmt.Sprintf("has %d documents; must have one, with computeType", len(roots))})
		}
		return nil, r.done()
	}
	w := &walker{report: r, source: newSource(name, roots[0].Line), lenient: true}
	if roots[0].Kind != yaml.MappingNode {
		w.mismatch("", roots[0], "computeType and other fields")
		return nil, r.done()
	}
	var file deploymentFile
	w.fields("", roots[0], reflect.ValueOf(&file).Elem())
	c := &check{source: w.source}
	config := c.deployment(&file)
	for _, f := range c.findings {
		r.add(f)
	}
	return config, r.done()
}

// deployment checks the rules between values, and moves them to where we have them.
func (c *check) deployment(file *deploymentFile) *DeploymentConfig {
	config := &DeploymentConfig{ComputeType: strings.ToLower(file.ComputeType), Namespace: file.Namespace}
	switch config.ComputeType {
	case "aks", "aksendpoint", "aci", "local":
	case "":
		c.fail("computeType", "is missing; must be aks, aci or local")
	default:
		c.fail("computeType", "is %s; must be aks, aci or local", quote(file.ComputeType))
	}
	if file.Namespace != "" {
		c.name("namespace", file.Namespace)
	}
	config.Auth = c.deploymentAuth(config.ComputeType, file)
	config.Version = Version{
		MaxConcurrentRequestsPerContainer: file.MaxConcurrentRequestsPerContainer,
		MaxQueueWaitMs:                    file.MaxQueueWaitMs,
		ScoringTimeoutMs:                  file.ScoringTimeoutMs,
		NumReplicas:                       file.NumReplicas,
		AutoScaler:                        file.AutoScaler,
		ContainerResourceRequirements:     file.ContainerResourceRequirements,
		LivenessProbeRequirements:         file.LivenessProbeRequirements,
		DataCollection:                    file.DataCollection,
		AppInsightsEnabled:                file.AppInsightsEnabled,
	}
	c.gpus(file, &config.Version.ContainerResourceRequirements)
	full := config.Version
	full.setDefaults()
	c.scaling("", &full)
	c.resources("containerResourceRequirements", &full.ContainerResourceRequirements)
	return config
}

// gpus takes the GPUs from either of the two names that Azure ML has for them.
func (c *check) gpus(file *deploymentFile, r *ContainerResourceRequirements) {
	if r.GPU != 0 && file.GPUCores != 0 && r.GPU != file.GPUCores {
		c.fail("gpuCores", "is %d, but containerResourceRequirements.gpu is %d; remove one", file.GPUCores, r.GPU)
	}
	if r.GPU == 0 {
		r.GPU = file.GPUCores
	}
}

// deploymentAuth is the mode that two switches say, and the keys.
func (c *check) deploymentAuth(computeType string, file *deploymentFile) Auth {
	token := file.TokenAuthEnabled != nil && *file.TokenAuthEnabled
	if token && file.AuthEnabled != nil && *file.AuthEnabled {
		c.fail("tokenAuthEnabled", "is true, as is authEnabled; turn one off: an endpoint has keys or tokens")
	}
	key := computeType != "aci" && computeType != "local"
	if file.AuthEnabled != nil {
		key = *file.AuthEnabled
	}
	auth := Auth{Mode: AuthNone, Keys: Keys{Primary: literal(file.Keys.PrimaryKey), Secondary: literal(file.Keys.SecondaryKey)}}
	switch {
	case key && (file.AuthEnabled != nil || !token):
		auth.Mode = AuthKey
	case token:
		auth.Mode = AuthToken
	}
	c.deploymentKeys(&auth)
	return auth
}

// deploymentKeys checks the keys under the names that the file has for them.
func (c *check) deploymentKeys(a *Auth) {
	if a.Mode != AuthKey && a.Keys != (Keys{}) {
		c.fail("keys", "has no effect without key authentication; remove the keys, or set authEnabled: true")
		return
	}
	c.literalKey("keys.primaryKey", a.Keys.Primary)
	c.literalKey("keys.secondaryKey", a.Keys.Secondary)
}

func (c *check) literalKey(path string, k *KeySource) {
	if k == nil {
		return
	}
	if err := CheckKey(k.Value); err != nil {
		c.fail(path, "%s", err)
	}
}

// literal is a key that is given as it is; nil if it is not.
func literal(key string) *KeySource {
	if key == "" {
		return nil
	}
	return &KeySource{Value: key}
}
