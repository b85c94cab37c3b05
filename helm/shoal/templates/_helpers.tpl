{{/* Helpers of several templates. `component` is peer, dht-node, tracker, ... */}}

{{/* Labels of an object: (dict "root" $ "component" "peer"). */}}
{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/part-of: shoal
app.kubernetes.io/version: {{ .root.Values.image.tag | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that never change, by which pods are selected. */}}
{{- define "shoal.selector" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* A pod's metadata, without the chart's version: a change of it must not restart the pod. */}}
{{- define "shoal.podMetadata" -}}
labels:
  {{- include "shoal.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: shoal
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The image of a component, for a container. */}}
{{- define "shoal.image" -}}
{{- $image := .root.Values.image -}}
image: {{ printf "%s/%s:%s" $image.repository .component $image.tag | list $image.registry | compact | join "/" | quote }}
imagePullPolicy: {{ $image.pullPolicy }}
{{- end }}

{{/* Fields of all pods. */}}
{{- define "shoal.pod" -}}
{{- $values := .root.Values -}}
automountServiceAccountToken: false
# No variables such as PEER_PORT for each Service of the namespace.
enableServiceLinks: false
{{- with $values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The pod's part of the restricted security standard, with this user. */}}
{{- define "shoal.podSecurity" -}}
{{- $user := int .user -}}
securityContext:
  runAsNonRoot: {{ ne $user 0 }}
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  # Do not scan the whole volume at each start if its root already has this owner.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* The container's part of the restricted security standard. */}}
{{- define "shoal.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Probes on the port `admin`, and a preStop from the component's `values`. */}}
{{- define "shoal.lifecycle" -}}
startupProbe:
  grpc:
    port: {{ .admin }}
    service: liveness
  periodSeconds: 1
  timeoutSeconds: 5
  # Opening a large store takes time.
  failureThreshold: 300
livenessProbe:
  grpc:
    port: {{ .admin }}
    service: liveness
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc:
    port: {{ .admin }}
  periodSeconds: 5
  timeoutSeconds: 5
{{- if .values.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .values.preStopSeconds }}
{{- end }}
{{- end }}

{{/* Settings as variables, sorted by key: (dict "prefix" "SHOAL" "settings" {...}). */}}
{{- define "shoal.variables" -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .settings }}
{{- $name := printf "%s__%s" $prefix (upper $key) }}
{{- if kindIs "map" $value }}
{{- include "shoal.variables" (dict "prefix" $name "settings" $value) }}
{{- else if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  value: {{ include "shoal.setting" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* The text of a setting's value: commas between list elements, no dot in whole numbers. */}}
{{- define "shoal.setting" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end }}

{{/* A service's environment: the variables of all services, its settings, and its `env`. */}}
{{- define "shoal.env" -}}
{{- $common := dict "log" (dict "format" .root.Values.log.format) -}}
{{- $settings := mergeOverwrite $common .settings (deepCopy .values.settings) -}}
- name: RUST_LOG
  value: {{ .root.Values.log.level | quote }}
{{- with .root.Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- include "shoal.variables" (dict "prefix" "SHOAL" "settings" $settings) }}
{{- with .values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The replicas of a workload of this `kind`; null in the values: keep the present number. */}}
{{- define "shoal.replicas" -}}
{{- $replicas := .values.replicas -}}
{{- if kindIs "invalid" $replicas -}}
{{- $present := lookup "apps/v1" .kind .root.Release.Namespace .component -}}
{{- $replicas = dig "spec" "replicas" $replicas $present -}}
{{- end -}}
{{- if not (kindIs "invalid" $replicas) -}}
replicas: {{ int $replicas }}
{{- end -}}
{{- end }}

{{/* Where a component's pods run: (dict "root" $ "component" "peer" "values" .Values.peer). */}}
{{- define "shoal.placement" -}}
{{- $placement := pick .values "nodeSelector" "tolerations" "affinity" -}}
{{- range $key, $value := $placement }}
{{- with $value }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The spread of a component's pods over zones and nodes. */}}
{{- define "shoal.spread" -}}
{{- $context := . -}}
{{- $keys := list (list .values.spread.zones "topology.kubernetes.io/zone") (list .values.spread.nodes "kubernetes.io/hostname") -}}
{{- $constraints := list -}}
{{- range $keys }}
{{- if ne (first .) "Off" }}
{{- $constraints = append $constraints . }}
{{- end }}
{{- end }}
{{- with $constraints }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ last . }}
    whenUnsatisfiable: {{ first . }}
    labelSelector:
      matchLabels:
        {{- include "shoal.selector" $context | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Names that resolve in all namespaces of the cluster, because links contain them. */}}
{{- define "shoal.tracker" -}}
tracker.{{ .Release.Namespace }}.svc:7070
{{- end }}
{{- define "shoal.dhtNode" -}}
dht-node.{{ .Release.Namespace }}.svc:7071
{{- end }}

{{/* Arguments of `shoal` for the enabled ones of trackers and ring. */}}
{{- define "shoal.places" -}}
{{- if .Values.tracker.enabled }}
- --tracker={{ include "shoal.tracker" . }}
{{- end }}
{{- if .Values.dhtNode.enabled }}
- --dht={{ include "shoal.dhtNode" . }}
{{- end }}
{{- end }}
