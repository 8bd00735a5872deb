{{/* Names, labels, images. Selector labels never change between releases. */}}
{{- define "banditmesh.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "banditmesh.selector" -}}
app.kubernetes.io/name: banditmesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The same on one line. */}}
{{- define "banditmesh.match" -}}
{{ include "banditmesh.selector" . | fromYaml | toJson }}
{{- end }}

{{- define "banditmesh.labels" -}}
{{ include "banditmesh.selector" . }}
app.kubernetes.io/part-of: banditmesh
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* {root, component}: the image; a service may have a tag of its own. */}}
{{- define "banditmesh.image" -}}
{{- $image := .root.Values.image -}}
{{- $own := dig "image" "tag" "" (get .root.Values .component | default dict) -}}
{{- $tag := coalesce $own $image.tag .root.Chart.AppVersion -}}
{{- if $image.registry }}{{ trimSuffix "/" $image.registry }}/{{ end }}{{ $image.prefix }}{{ .component }}:{{ $tag }}
{{- end }}

{{- define "banditmesh.port" -}}
{{- get (dict "importer" 50051 "engine" 50052 "tracker" 50053 "joiner" 50054 "learner" 50055) . -}}
{{- end }}

{{/* What each service talks to: the arrows of the design. Read by environment variables, Secrets and NetworkPolicies alike. */}}
{{- define "banditmesh.uses" -}}
{{- $samples := .Values.engine.sampledDecisions -}}
{{- range dig "placements" dict (fromYaml .Values.mesh.config) }}{{- if gt (float64 (dig "decisions" "sample" 0 .)) 0.0 }}{{ $samples = true }}{{ end }}{{ end -}}
importer: [redis, store, providers]
engine: [redis, store, tokens{{ if $samples }}, kafka{{ end }}]
tracker: [kafka, tokens]
joiner: [kafka, redis]
learner: [kafka, store]
{{- end }}

{{- define "banditmesh.configMap" -}}
{{- default (printf "%s-mesh" (include "banditmesh.name" .)) .Values.mesh.existingConfigMap -}}
{{- end }}

{{/* Addresses: the operator's, else those of the evaluation servers. */}}
{{- define "banditmesh.kafka" -}}
{{- if .Values.evaluation.enabled }}{{ include "banditmesh.name" . }}-kafka:9092{{ else }}{{ required "kafka.servers is empty: where is your Kafka? host:port,host:port" .Values.kafka.servers }}{{ end -}}
{{- end }}
{{- define "banditmesh.redis" -}}
{{- if .Values.evaluation.enabled }}redis://{{ include "banditmesh.name" . }}-valkey:6379/0{{ else }}{{ required "redis.url is empty: where is your Redis or Valkey? redis://host:port/0" .Values.redis.url }}{{ end -}}
{{- end }}
{{- define "banditmesh.store" -}}
{{- if .Values.evaluation.enabled }}s3://banditmesh/mesh?endpoint=http://{{ include "banditmesh.name" . }}-s3:8333&region=us-east-1{{ else }}{{ required "store.url is empty: where do models go? s3://bucket/prefix?region=…" .Values.store.url }}{{ end -}}
{{- end }}
{{- define "banditmesh.storeSecret" -}}
{{- if .Values.evaluation.enabled }}{{ include "banditmesh.name" . }}-evaluation-store{{ else }}{{ .Values.store.existingSecret }}{{ end -}}
{{- end }}
{{- define "banditmesh.tokenSecret" -}}
{{- if .Values.tokens.existingSecret }}{{ .Values.tokens.existingSecret }}{{ else if .Values.evaluation.enabled }}{{ include "banditmesh.name" . }}-evaluation-tokens{{ else }}{{ required "tokens.existingSecret is empty: make a Secret with the key `keys` (1:$(openssl rand -hex 32)) and name it" .Values.tokens.existingSecret }}{{ end -}}
{{- end }}

{{/* {root, component}: a ServiceAccount that stands for nobody but its workload identity: no token of the API server is mounted. */}}
{{- define "banditmesh.account" -}}
{{- $own := get .root.Values .component | default dict -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "banditmesh.name" .root }}-{{ .component }}
  labels: {{- include "banditmesh.labels" . | nindent 4 }}
  {{- with merge (dict) (dig "serviceAccountAnnotations" dict $own) .root.Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{/* The Secret with the key of the archive's pseudonyms; empty: users stand in it by their own ids, or the key comes from elsewhere. */}}
{{- define "banditmesh.archiveKeySecret" -}}
{{- $archive := dig "archive" dict (fromYaml .Values.mesh.config) -}}
{{- $keyed := and (dig "enabled" true $archive) (eq (dig "user_ids" "plain" $archive) "keyed") -}}
{{- if and $keyed (not (hasKey (merge (dict) .Values.learner.extraEnv .Values.extraEnv) "BANDITMESH_ARCHIVE_KEY")) }}{{ required "archive.keySecret is empty, and mesh.yaml says archive.user_ids: keyed: make a Secret with the key `key` ($(openssl rand -hex 32)) and name it" .Values.archive.keySecret }}{{ else }}{{ .Values.archive.keySecret }}{{ end -}}
{{- end }}

{{/* The Secret that the gRPC ports serve TLS with; empty: plaintext. */}}
{{- define "banditmesh.tlsSecret" -}}
{{- if .Values.tls.existingSecret }}{{ .Values.tls.existingSecret }}{{ else if .Values.tls.certManager.issuer }}{{ include "banditmesh.name" . }}-tls{{ end -}}
{{- end }}

{{/* Where probes go: the gRPC port, or with TLS a port of health alone, since probes speak no TLS. */}}
{{- define "banditmesh.probePort" -}}
{{- if include "banditmesh.tlsSecret" .root }}50050{{ else }}{{ include "banditmesh.port" .component }}{{ end -}}
{{- end }}
