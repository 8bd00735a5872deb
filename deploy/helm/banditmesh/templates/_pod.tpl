{{/* What every pod of ours is. */}}
{{- define "banditmesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "banditmesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* {root, uses}: environment of a process that talks to these. */}}
{{- define "banditmesh.environment" -}}
{{- $v := .root.Values -}}
- {name: BANDITMESH_CONFIG, value: /etc/banditmesh/mesh.yaml}
- {name: BANDITMESH_LOG_FORMAT, value: json}
{{- if has "kafka" .uses }}
- {name: BANDITMESH_KAFKA, value: {{ include "banditmesh.kafka" .root | quote }}}
{{- if ne $v.kafka.securityProtocol "PLAINTEXT" }}
- {name: BANDITMESH_KAFKA_SECURITY_PROTOCOL, value: {{ $v.kafka.securityProtocol | quote }}}
{{- if hasPrefix "SASL_" $v.kafka.securityProtocol }}
- {name: BANDITMESH_KAFKA_SASL_MECHANISM, value: {{ $v.kafka.saslMechanism | quote }}}
{{- end }}
{{- end }}
{{- with $v.kafka.token }}
- {name: BANDITMESH_KAFKA_TOKEN, value: {{ . | quote }}}
{{- end }}
{{- with $v.kafka.existingSecret }}
- {name: BANDITMESH_KAFKA_USERNAME, valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}}
- {name: BANDITMESH_KAFKA_PASSWORD, valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}}
{{- end }}
{{- if $v.kafka.tlsSecret }}
- {name: BANDITMESH_KAFKA_CA_FILE, value: /etc/banditmesh-kafka/ca.crt}
{{- if $v.kafka.clientCertificate }}
- {name: BANDITMESH_KAFKA_CERTIFICATE_FILE, value: /etc/banditmesh-kafka/tls.crt}
- {name: BANDITMESH_KAFKA_KEY_FILE, value: /etc/banditmesh-kafka/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- if has "redis" .uses }}
- {name: BANDITMESH_REDIS, value: {{ include "banditmesh.redis" .root | quote }}}
{{- with $v.redis.prefix }}
- {name: BANDITMESH_REDIS_PREFIX, value: {{ . | quote }}}
{{- end }}
{{- with $v.redis.existingSecret }}
- {name: BANDITMESH_REDIS_USERNAME, valueFrom: {secretKeyRef: {name: {{ . }}, key: username, optional: true}}}
- {name: BANDITMESH_REDIS_PASSWORD, valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}}
{{- end }}
{{- if $v.redis.tlsSecret }}
- {name: BANDITMESH_REDIS_CA_FILE, value: /etc/banditmesh-redis/ca.crt}
{{- if $v.redis.clientCertificate }}
- {name: BANDITMESH_REDIS_CERTIFICATE_FILE, value: /etc/banditmesh-redis/tls.crt}
- {name: BANDITMESH_REDIS_KEY_FILE, value: /etc/banditmesh-redis/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- if has "store" .uses }}
- {name: BANDITMESH_STORE, value: {{ include "banditmesh.store" .root | quote }}}
{{- end }}
{{- if has "tokens" .uses }}
- {name: BANDITMESH_TOKEN_KEYS, valueFrom: {secretKeyRef: {name: {{ include "banditmesh.tokenSecret" .root }}, key: keys}}}
{{- end }}
{{- range $name, $value := merge (dict) .extraEnv $v.extraEnv }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "banditmesh.environmentFrom" -}}
{{- if and (has "store" .uses) (include "banditmesh.storeSecret" .root) }}
envFrom: [{secretRef: {name: {{ include "banditmesh.storeSecret" .root }}}}]
{{- end }}
{{- end }}

{{- define "banditmesh.mounts" -}}
- {name: mesh, mountPath: /etc/banditmesh, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if and (has "kafka" .uses) .root.Values.kafka.tlsSecret }}
- {name: kafka-tls, mountPath: /etc/banditmesh-kafka, readOnly: true}
{{- end }}
{{- if and (has "redis" .uses) .root.Values.redis.tlsSecret }}
- {name: redis-tls, mountPath: /etc/banditmesh-redis, readOnly: true}
{{- end }}
{{- end }}

{{- define "banditmesh.volumes" -}}
- {name: mesh, configMap: {name: {{ include "banditmesh.configMap" .root }}}}
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
{{- if and (has "kafka" .uses) .root.Values.kafka.tlsSecret }}
- {name: kafka-tls, secret: {secretName: {{ .root.Values.kafka.tlsSecret }}}}
{{- end }}
{{- if and (has "redis" .uses) .root.Values.redis.tlsSecret }}
- {name: redis-tls, secret: {secretName: {{ .root.Values.redis.tlsSecret }}}}
{{- end }}
{{- end }}

{{/* {root, component}: environment of a service; what extraEnv names stands once, as extraEnv has it: a server-side apply refuses doubles. */}}
{{- define "banditmesh.serviceEnvironment" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $own := get $v .component -}}
{{- $context := dict "root" $root "uses" (get (include "banditmesh.uses" $root | fromYaml) .component) "extraEnv" $own.extraEnv -}}
- {name: BANDITMESH_GRPC_ADDRESS, value: "0.0.0.0:{{ (include "banditmesh.port" .component) }}"}
- {name: BANDITMESH_METRICS_PORT, value: "9090"}
- {name: BANDITMESH_DRAIN_DELAY_S, value: {{ $v.shutdown.drainSeconds | quote }}}
- {name: BANDITMESH_GRACE_S, value: {{ $v.shutdown.graceSeconds | quote }}}
{{- if include "banditmesh.tlsSecret" $root }}
- {name: BANDITMESH_TLS_CERT, value: /etc/banditmesh-tls/tls.crt}
- {name: BANDITMESH_TLS_KEY, value: /etc/banditmesh-tls/tls.key}
{{- if $v.tls.clientAuth }}
- {name: BANDITMESH_TLS_CLIENT_CA, value: /etc/banditmesh-tls/ca.crt}
{{- end }}
- {name: BANDITMESH_HEALTH_ADDRESS, value: "0.0.0.0:50050"}
{{- end }}
{{- if not $v.tls.reflection }}
- {name: BANDITMESH_REFLECTION, value: "false"}
{{- end }}
{{- if $v.mesh.events }}
- {name: BANDITMESH_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: BANDITMESH_POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}
{{- end }}
{{- if eq .component "engine" }}
- {name: BANDITMESH_MODEL_CACHE, value: /var/cache/banditmesh}
{{- end }}
{{- if eq .component "joiner" }}
- {name: BANDITMESH_CLIENT_ID, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end }}
{{- if eq .component "learner" }}
- {name: BANDITMESH_REPLICAS, value: {{ $own.replicas | quote }}}
{{- with include "banditmesh.archiveKeySecret" $root }}
- {name: BANDITMESH_ARCHIVE_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: key}}}
{{- end }}
- {name: BANDITMESH_MODEL_CACHE, value: /var/cache/banditmesh}
{{- end }}
{{ include "banditmesh.environment" $context }}
{{- end }}
{{- define "banditmesh.lastOfEachName" -}}
{{- $all := fromYamlArray . -}}
{{- $last := dict -}}
{{- range $index, $each := $all }}{{ $_ := set $last $each.name $index }}{{ end -}}
{{- range $index, $each := $all }}
{{- if eq $index (get $last $each.name) }}
- {{ toJson $each }}
{{- end }}
{{- end }}
{{- end }}

{{/* {root, component}: the pod template of a service. */}}
{{- define "banditmesh.serviceTemplate" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $own := get $v .component -}}
{{- $uses := get (include "banditmesh.uses" $root | fromYaml) .component -}}
{{- $port := include "banditmesh.port" .component | int -}}
{{- $probe := include "banditmesh.probePort" . | int -}}
{{- $serving := has .component (list "engine" "tracker") -}}
{{- $context := dict "root" $root "uses" $uses "extraEnv" $own.extraEnv -}}
metadata:
  labels: {{- include "banditmesh.labels" . | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .component }}
    {{- if and $v.mesh.restartOnChange (not $v.mesh.existingConfigMap) }}
    checksum/mesh: {{ $v.mesh.config | sha256sum }}
    {{- end }}
spec:
  serviceAccountName: {{ include "banditmesh.name" $root }}-{{ .component }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ add $v.shutdown.drainSeconds $v.shutdown.graceSeconds 25 }}
  {{- with ternary $v.priorityClassName $v.backgroundPriorityClassName $serving }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.image.pullSecrets }}
  imagePullSecrets: {{- range . }}
    - name: {{ . }}
  {{- end }}
  {{- end }}
  securityContext: {{- include "banditmesh.podSecurity" . | nindent 4 }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector: {matchLabels: {{ include "banditmesh.match" $ }}}
    {{- end }}
  initContainers:
    - name: check
      image: {{ include "banditmesh.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command: [banditmesh, check, /etc/banditmesh/mesh.yaml]
      env: [{name: COLUMNS, value: "160"}]
      resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}
      securityContext: {{- include "banditmesh.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: mesh, mountPath: /etc/banditmesh, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  containers:
    - name: {{ .component }}
      image: {{ include "banditmesh.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      command: [python, -m, services.{{ ternary "crs_engine" .component (eq .component "engine") }}]
      env: {{- include "banditmesh.serviceEnvironment" (dict "root" $root "component" .component) | include "banditmesh.lastOfEachName" | nindent 8 }}
      {{- include "banditmesh.environmentFrom" $context | nindent 6 }}
      ports:
        - {name: grpc, containerPort: {{ $port }}}
        - {name: metrics, containerPort: 9090}
        {{- if include "banditmesh.tlsSecret" $root }}
        - {name: health, containerPort: 50050}
        {{- end }}
      # "liveness" is served as long as the process itself is well; "" follows the servers that it needs.
      startupProbe: {grpc: {port: {{ $probe }}, service: liveness}, periodSeconds: 1, failureThreshold: 90, timeoutSeconds: 2}
      readinessProbe: {grpc: {port: {{ $probe }}}, periodSeconds: 2, failureThreshold: 2, timeoutSeconds: 2}
      livenessProbe: {grpc: {port: {{ $probe }}, service: liveness}, periodSeconds: 10, failureThreshold: 3, timeoutSeconds: 5}
      resources: {{- toYaml $own.resources | nindent 8 }}
      securityContext: {{- include "banditmesh.containerSecurity" . | nindent 8 }}
      volumeMounts:
        {{- include "banditmesh.mounts" $context | nindent 8 }}
        {{- if include "banditmesh.tlsSecret" $root }}
        - {name: tls, mountPath: /etc/banditmesh-tls, readOnly: true}
        {{- end }}
        {{- if $v.mesh.events }}
        - {name: account, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- end }}
        {{- if has .component (list "engine" "learner") }}
        - {name: cache, mountPath: /var/cache/banditmesh}
        {{- end }}
  volumes:
    {{- include "banditmesh.volumes" $context | nindent 4 }}
    {{- with include "banditmesh.tlsSecret" $root }}
    - {name: tls, secret: {secretName: {{ . }}, defaultMode: 0440}}
    {{- end }}
    {{- if $v.mesh.events }}
    # What an automatic mount has; named, because these pods have none by themselves.
    - name: account
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3607}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- end }}
    {{- if has .component (list "engine" "learner") }}
    - {name: cache, emptyDir: {sizeLimit: {{ $own.modelCacheSize | default "1Gi" }}}}
    {{- end }}
  {{- with $own.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* How `helm test` and the demo call: certificates and a key of the access table. */}}
{{- define "banditmesh.clientEnvironment" -}}
{{- if or .Values.test.tlsSecret (include "banditmesh.tlsSecret" .) }}
- {name: BANDITMESH_CLIENT_CA, value: /etc/banditmesh-client/ca.crt}
{{- if or .Values.test.tlsSecret .Values.tls.clientAuth }}
- {name: BANDITMESH_CLIENT_CERT, value: /etc/banditmesh-client/tls.crt}
- {name: BANDITMESH_CLIENT_KEY, value: /etc/banditmesh-client/tls.key}
{{- end }}
{{- end }}
{{- with .Values.test.apiKeySecret }}
- {name: BANDITMESH_CLIENT_API_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: key}}}
{{- end }}
{{- end }}
{{- define "banditmesh.clientMounts" -}}
{{- if or .Values.test.tlsSecret (include "banditmesh.tlsSecret" .) }}
- {name: client, mountPath: /etc/banditmesh-client, readOnly: true}
{{- end }}
{{- end }}
{{- define "banditmesh.clientVolumes" -}}
{{- with coalesce .Values.test.tlsSecret (include "banditmesh.tlsSecret" .) }}
- {name: client, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end }}
