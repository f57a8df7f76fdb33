{{/* Names, labels and what several templates must agree on. */}}

{{- define "clusterling.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 52 characters: what hangs on it, as a CronJob's name, must not be longer than 63. */}}
{{- define "clusterling.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "clusterling.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "clusterling.selectorLabels" -}}
app.kubernetes.io/name: {{ include "clusterling.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{/*
An object's metadata, from "root", and as need be: "suffix" or the whole "name", "component", "labels", "annotations".
What the chart says goes before what is given, and that before what is common to all.
*/}}
{{- define "clusterling.metadata" -}}
{{- $root := .root }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- $own := dict "helm.sh/chart" $chart "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/managed-by" $root.Release.Service -}}
name: {{ default (printf "%s%s" (include "clusterling.fullname" $root) (default "" .suffix)) .name }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- merge (include "clusterling.podLabels" . | fromYaml) $own (default dict .labels) $root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (dict) (default dict .annotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A pod's labels, from "root", "component" and "labels". */}}
{{- define "clusterling.podLabels" -}}
{{- $own := include "clusterling.selectorLabels" .root | fromYaml }}
{{- with .component }}{{ $own = set $own "app.kubernetes.io/component" . }}{{ end }}
{{- merge $own (dict "app.kubernetes.io/version" .root.Chart.AppVersion) (default dict .labels) .root.Values.commonLabels | toYaml }}
{{- end }}

{{- define "clusterling.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "clusterling.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "clusterling.image" -}}
{{- $name := .Values.image.repository }}
{{- with .Values.image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* "true" where any number of pods share the store, else empty. */}}
{{- define "clusterling.shared" -}}
{{- if ne .Values.store.type "sqlite" }}true{{ end }}
{{- end }}

{{- define "clusterling.adminTokenSecret" -}}
{{- if .Values.adminToken.existingSecret }}
{{- .Values.adminToken.existingSecret }}
{{- else if .Values.adminToken.create }}
{{- include "clusterling.fullname" . }}-admin
{{- end }}
{{- end }}

{{/* The Secret with the servers' certificate; empty where they make it. */}}
{{- define "clusterling.tlsSecret" -}}
{{- if eq .Values.tls.mode "certManager" }}
{{- include "clusterling.fullname" . }}-tls
{{- else if eq .Values.tls.mode "existingSecret" }}
{{- .Values.tls.existingSecret }}
{{- end }}
{{- end }}

{{/* Who signed it, by what `helm test` and monitors know the servers; empty where only they know, or everybody does. */}}
{{- define "clusterling.caSecret" -}}
{{- if .Values.tls.caInKubeconfigs }}{{ include "clusterling.tlsSecret" . }}{{ end }}
{{- end }}

{{- define "clusterling.serviceHost" -}}
{{ include "clusterling.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "clusterling.externalUrl" -}}
{{- if .Values.externalUrl }}
{{- .Values.externalUrl }}
{{- else if eq (int .Values.service.port) 443 }}
{{- printf "https://%s" (include "clusterling.serviceHost" .) }}
{{- else }}
{{- printf "https://%s:%d" (include "clusterling.serviceHost" .) (int .Values.service.port) }}
{{- end }}
{{- end }}

{{- define "clusterling.externalHost" -}}
{{- $host := (urlParse (include "clusterling.externalUrl" .)).host }}
{{- $host | regexFind "^(\\[[^]]*\\]|[^:]*)" | trimPrefix "[" | trimSuffix "]" }}
{{- end }}

{{/* All hosts of the certificate, as {"hosts": […]}. */}}
{{- define "clusterling.hosts" -}}
{{- $name := include "clusterling.fullname" . }}
{{- $hosts := list (include "clusterling.externalHost" .) $name (printf "%s.%s" $name .Release.Namespace) (include "clusterling.serviceHost" .) (printf "%s.cluster.local" (include "clusterling.serviceHost" .)) }}
{{- if .Values.ingress.enabled }}{{ $hosts = concat $hosts .Values.ingress.hosts }}{{ end }}
{{- if or .Values.gateway.tlsRoute.enabled .Values.gateway.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.gateway.hostnames }}{{ end }}
{{- dict "hosts" (concat $hosts .Values.tls.extraHosts | uniq) | toJson }}
{{- end }}

{{/* The store's URL with the files of its Secret, in the words of its driver. */}}
{{- define "clusterling.storeUrl" -}}
{{- $store := .Values.store }}
{{- $words := ternary (dict "ca" "ca" "cert" "cert" "key" "key") (dict "ca" "sslrootcert" "cert" "sslcert" "key" "sslkey") (eq $store.type "etcd") }}
{{- $query := list }}
{{- if $store.caKey }}{{ $query = append $query (printf "%s=/etc/clusterling/store/ca.crt" $words.ca) }}{{ end }}
{{- if $store.certKey }}{{ $query = append $query (printf "%s=/etc/clusterling/store/tls.crt" $words.cert) }}{{ end }}
{{- if $store.keyKey }}{{ $query = append $query (printf "%s=/etc/clusterling/store/tls.key" $words.key) }}{{ end }}
{{- $store.url }}
{{- if $query }}{{ contains "?" $store.url | ternary "&" "?" }}{{ join "&" $query }}{{ end }}
{{- end }}

{{/* What values say together, where the schema cannot. */}}
{{- define "clusterling.check" -}}
{{- $store := .Values.store }}
{{- if include "clusterling.shared" . }}
  {{- if and $store.url $store.urlKey }}{{ fail "store.url and store.urlKey exclude each other" }}{{ end }}
  {{- if not (or $store.url $store.urlKey) }}{{ fail (printf "store.type is %s: say where it is with store.url, or with store.existingSecret and store.urlKey" $store.type) }}{{ end }}
  {{- if and $store.url (not (hasPrefix $store.type $store.url)) }}{{ fail (printf "store.type is %s, and store.url is another's" $store.type) }}{{ end }}
  {{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" $store.url }}{{ fail "store.url has a password in it: put it into a Secret and name that with store.existingSecret and store.passwordKey" }}{{ end }}
  {{- $keys := list $store.passwordKey $store.urlKey $store.caKey $store.certKey $store.keyKey | compact }}
  {{- if and $keys (not $store.existingSecret) }}{{ fail "store.passwordKey, urlKey, caKey, certKey and keyKey are keys of store.existingSecret, which is not named" }}{{ end }}
  {{- if and $store.existingSecret (not $keys) }}{{ fail "store.existingSecret is named, and none of its keys: see store.passwordKey and those beside it" }}{{ end }}
  {{- if ne (empty $store.certKey) (empty $store.keyKey) }}{{ fail "store.certKey and store.keyKey go together" }}{{ end }}
{{- else }}
  {{- if or $store.url $store.existingSecret }}{{ fail "store.url and store.existingSecret are of postgres and etcd: set store.type" }}{{ end }}
  {{- if .Values.autoscaling.enabled }}{{ fail "autoscaling needs a store that pods can share: set store.type to postgres or etcd" }}{{ end }}
{{- end }}
{{- if and (eq .Values.tls.mode "existingSecret") (not .Values.tls.existingSecret) }}{{ fail "tls.mode is existingSecret: name it with tls.existingSecret" }}{{ end }}
{{- if and (ne .Values.tls.mode "existingSecret") .Values.tls.existingSecret }}{{ fail "tls.existingSecret is named: set tls.mode to existingSecret" }}{{ end }}
{{- if le (int .Values.shutdown.gracePeriodSeconds) (add (int .Values.shutdown.delaySeconds) (int .Values.shutdown.spreadSeconds) | int) }}{{ fail "shutdown.gracePeriodSeconds must be more than delaySeconds and spreadSeconds together: a pod would be killed before it has stopped" }}{{ end }}
{{- if and (or .Values.gateway.tlsRoute.enabled .Values.gateway.httpRoute.enabled) (not .Values.gateway.parentRefs) }}{{ fail "gateway.parentRefs says which Gateway the routes hang on" }}{{ end }}
{{- if and .Values.gateway.httpRoute.enabled .Values.gateway.httpRoute.backendTLSPolicy (not .Values.gateway.httpRoute.caCertificateRefs) (not (include "clusterling.tlsSecret" .)) }}{{ fail "a gateway that ends TLS must know the servers' CA: set tls.mode to certManager or existingSecret, or gateway.httpRoute.caCertificateRefs" }}{{ end }}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) }}{{ fail "autoscaling.minReplicas is more than maxReplicas" }}{{ end }}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetCPUUtilizationPercentage .Values.autoscaling.targetInflightRequests .Values.autoscaling.metrics)) }}{{ fail "autoscaling has nothing to go by: set targetCPUUtilizationPercentage, targetInflightRequests or metrics" }}{{ end }}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}{{ fail "metrics.serviceMonitor and metrics.podMonitor would scrape everything twice: enable one" }}{{ end }}
{{- if and .Values.proxyProtocol (not .Values.trustedProxies) }}{{ fail "proxyProtocol is spoken by trustedProxies alone: name them" }}{{ end }}
{{- if and .Values.backup.enabled (not .Values.backup.volume) }}{{ fail "backup.volume says where the copies go" }}{{ end }}
{{- if and .Values.backup.enabled (eq .Values.store.type "sqlite") (not .Values.store.sqlite.persistence) }}{{ fail "backup needs store.sqlite.persistence" }}{{ end }}
{{- end }}
