{{/* {root, component, command, port, resources, mounts, volumes}: a server of one pod with a disk, for evaluation. */}}
{{- define "banditmesh.evaluationServer" -}}
{{- $name := printf "%s-%s" (include "banditmesh.name" .root) .component -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels: {{- include "banditmesh.labels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "banditmesh.selector" . | nindent 4 }}
  ports: [{name: server, port: {{ .port }}, targetPort: server}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels: {{- include "banditmesh.labels" . | nindent 4 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector: {matchLabels: {{ include "banditmesh.match" . }}}
  template:
    metadata:
      labels: {{- include "banditmesh.labels" . | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext: {{- include "banditmesh.podSecurity" . | nindent 8 }}
      containers:
        - name: server
          image: {{ include "banditmesh.image" (dict "root" .root "component" "evaluation") }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          command: [python, -m, banditmesh.local.in_cluster, {{ .component }}]
          env: {{- toYaml .env | nindent 12 }}
          ports: [{name: server, containerPort: {{ .port }}}]
          startupProbe: {tcpSocket: {port: server}, periodSeconds: 1, failureThreshold: 300}
          readinessProbe: {tcpSocket: {port: server}, periodSeconds: 5}
          resources: {{- toYaml .resources | nindent 12 }}
          securityContext: {{- include "banditmesh.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - {name: data, mountPath: /data}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - {name: tmp, emptyDir: {sizeLimit: 256Mi}}
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: {{ .root.Values.evaluation.storage }}}}}
{{- end }}
