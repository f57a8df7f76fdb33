{{/* The pod of the server: the same for Deployment and StatefulSet, but for where its data are. */}}

{{- define "clusterling.podTemplate" -}}
metadata:
  labels:
    {{- include "clusterling.podLabels" (dict "root" . "labels" .Values.podLabels) | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: server
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "clusterling.serviceAccountName" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.shutdown.gracePeriodSeconds }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "clusterling.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      args:
        {{- include "clusterling.args" . | nindent 8 }}
      {{- with include "clusterling.env" . }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: https
          containerPort: 6443
          protocol: TCP
      startupProbe:
        httpGet: {path: /livez, port: https, scheme: HTTPS}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: https, scheme: HTTPS}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: https, scheme: HTTPS}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "clusterling.mounts" . | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "clusterling.volumes" . | trim | nindent 4 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and (include "clusterling.shared" .) .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- $selector := dict "matchLabels" (include "clusterling.selectorLabels" . | fromYaml) }}
    {{- range .Values.topologySpreadConstraints }}
    - {{ hasKey . "labelSelector" | ternary . (merge (dict "labelSelector" $selector) .) | toJson }}
    {{- end }}
  {{- end }}
{{- end }}

{{- define "clusterling.args" -}}
- serve
- --data-dir=/var/lib/clusterling/data
- {{ printf "--listen=%s:6443" .Values.listenAddress | quote }}
- --external-url={{ include "clusterling.externalUrl" . }}
{{- if include "clusterling.shared" . }}
{{- if .Values.store.urlKey }}
- --store=$(CLUSTERLING_STORE)
{{- else }}
- {{ printf "--store=%s" (include "clusterling.storeUrl" .) | quote }}
{{- end }}
{{- if .Values.store.passwordKey }}
- --store-password-file=/etc/clusterling/store/password
{{- end }}
{{- end }}
{{- if include "clusterling.tlsSecret" . }}
- --tls-cert=/etc/clusterling/tls/tls.crt
- --tls-key=/etc/clusterling/tls/tls.key
{{- if .Values.tls.caInKubeconfigs }}
- --tls-ca=/etc/clusterling/tls/ca.crt
{{- end }}
{{- else }}
{{- range (include "clusterling.hosts" . | fromJson).hosts }}
- --tls-san={{ . }}
{{- end }}
{{- end }}
{{- if include "clusterling.adminTokenSecret" . }}
- --admin-token-file=/etc/clusterling/admin/token
{{- end }}
{{- if .Values.metrics.token.existingSecret }}
- --metrics-token-file=/etc/clusterling/metrics/token
{{- end }}
{{- with include "clusterling.defaultQuota" . }}
- {{ printf "--default-quota=%s" . | quote }}
{{- end }}
- --clusters=/etc/clusterling/clusters/clusters.yaml
- --default-cluster={{ .Values.defaultCluster }}
- {{ printf "--packs=%s" .Values.packs | quote }}
- --shutdown-delay={{ .Values.shutdown.delaySeconds }}
- --shutdown-spread={{ .Values.shutdown.spreadSeconds }}
- --log-level={{ .Values.logLevel }}
- --log-format={{ .Values.logFormat }}
- --workers={{ int .Values.workers }}
{{- with .Values.limits }}
{{- $limits := list }}
{{- range $name, $value := . }}
{{- $limits = append $limits (printf "%s=%d" $name (int64 $value)) }}
{{- end }}
- {{ printf "--limits=%s" (join "," $limits) | quote }}
{{- end }}
{{- with .Values.trustedProxies }}
- {{ printf "--trusted-proxies=%s" (join "," .) | quote }}
{{- end }}
{{- if .Values.proxyProtocol }}
- --proxy-protocol
{{- end }}
{{- with .Values.tracing.endpoint }}
- {{ printf "--tracing-endpoint=%s" . | quote }}
{{- end }}
{{- if not (has (toString .Values.tracing.sampling) (list "" "<nil>")) }}
- --tracing-sampling={{ .Values.tracing.sampling }}
{{- end }}
{{- range .Values.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}

{{/* As the flag has it; numbers in a file of values are floats here. */}}
{{- define "clusterling.defaultQuota" -}}
{{- $limits := list }}
{{- range $kind, $prefix := dict "hard" "" "soft" "soft." }}
{{- range $name, $value := index $.Values.defaultQuota $kind }}
{{- $limits = append $limits (printf "%s%s=%s" $prefix $name (kindIs "string" $value | ternary $value (toString (int64 $value)))) }}
{{- end }}
{{- end }}
{{- join "," $limits }}
{{- end }}

{{/* Also where `kubectl exec` runs the command line. */}}
{{- define "clusterling.env" -}}
- name: CLUSTERLING_DATA_DIR
  value: /var/lib/clusterling/data
{{- include "clusterling.storeEnv" . }}
{{- if include "clusterling.shared" . }}
{{- if not .Values.store.urlKey }}
- name: CLUSTERLING_STORE
  value: {{ include "clusterling.storeUrl" . | quote }}
{{- end }}
{{- if .Values.store.passwordKey }}
- name: CLUSTERLING_STORE_PASSWORD_FILE
  value: /etc/clusterling/store/password
{{- end }}
{{- end }}
{{- if include "clusterling.tlsSecret" . }}
- name: CLUSTERLING_TLS_CERT
  value: /etc/clusterling/tls/tls.crt
- name: CLUSTERLING_TLS_KEY
  value: /etc/clusterling/tls/tls.key
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "clusterling.storeEnv" -}}
{{- if and (include "clusterling.shared" .) .Values.store.urlKey }}
- name: CLUSTERLING_STORE
  valueFrom:
    secretKeyRef: {name: {{ .Values.store.existingSecret }}, key: {{ .Values.store.urlKey | quote }}}
{{- end }}
{{- end }}

{{- define "clusterling.mounts" -}}
- {name: data, mountPath: /var/lib/clusterling}
- {name: tmp, mountPath: /tmp}
- {name: clusters, mountPath: /etc/clusterling/clusters, readOnly: true}
{{- if include "clusterling.adminTokenSecret" . }}
- {name: admin, mountPath: /etc/clusterling/admin, readOnly: true}
{{- end }}
{{- if .Values.metrics.token.existingSecret }}
- {name: metrics, mountPath: /etc/clusterling/metrics, readOnly: true}
{{- end }}
{{- if include "clusterling.tlsSecret" . }}
- {name: tls, mountPath: /etc/clusterling/tls, readOnly: true}
{{- end }}
{{- if include "clusterling.storeFiles" . }}
- {name: store, mountPath: /etc/clusterling/store, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "clusterling.volumes" -}}
{{- if include "clusterling.shared" . }}
- name: data
  emptyDir: {sizeLimit: 64Mi}
{{- else if not .Values.store.sqlite.persistence }}
- name: data
  emptyDir: {}
{{- else if .Values.store.sqlite.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ .Values.store.sqlite.existingClaim }}}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: clusters
  configMap: {name: {{ include "clusterling.fullname" . }}-clusters}
{{- with include "clusterling.adminTokenSecret" . }}
- name: admin
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: {{ $.Values.adminToken.key | quote }}, path: token}]
{{- end }}
{{- with .Values.metrics.token }}
{{- if .existingSecret }}
- name: metrics
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: token}]
{{- end }}
{{- end }}
{{- with include "clusterling.tlsSecret" . }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- include "clusterling.storeVolume" . }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The keys of the store's Secret that are mounted, as a volume's items; empty for none. */}}
{{- define "clusterling.storeFiles" -}}
{{- if include "clusterling.shared" . }}
{{- $store := .Values.store }}
{{- $items := list }}
{{- range $file := list (list $store.passwordKey "password") (list $store.caKey "ca.crt") (list $store.certKey "tls.crt") (list $store.keyKey "tls.key") }}
{{- if first $file }}{{ $items = append $items (dict "key" (first $file) "path" (last $file)) }}{{ end }}
{{- end }}
{{- with $items }}{{ toJson . }}{{ end }}
{{- end }}
{{- end }}

{{- define "clusterling.storeVolume" -}}
{{- with include "clusterling.storeFiles" . }}
- name: store
  secret:
    secretName: {{ $.Values.store.existingSecret }}
    defaultMode: 0440
    items: {{ . }}
{{- end }}
{{- end }}
