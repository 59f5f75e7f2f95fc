package spec

import _ "embed"

// Schema is the JSON Schema (draft 2020-12) of an Endpoint document, generated
// from the types of this package.
//
//go:embed endpoint.schema.json
var Schema []byte
