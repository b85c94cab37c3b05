{{/* The peer's pod, of a Deployment or a DaemonSet. */}}

{{/* The chart's settings, which `peer.settings` may override. */}}
{{- define "shoal.peerSettings" -}}
{{- $peer := .Values.peer -}}
data_dir: {{ include "shoal.mount" . }}{{ if eq $peer.kind "DaemonSet" }}/data{{ end }}
{{- if .Values.tracker.enabled }}
tracker: [{{ include "shoal.tracker" . | quote }}]
{{- end }}
{{- if .Values.dhtNode.enabled }}
dht: [{{ include "shoal.dhtNode" . | quote }}]
{{- end }}
replicate: {{ $peer.replicate }}
{{- if eq $peer.replicate "listed" }}
contents: {{ toJson $peer.contents }}
{{- end }}
{{- if eq $peer.kind "DaemonSet" }}
# Other processes of the node share the directory: so the local API is the socket in `data`, and
# accepts paths in these directories only.
publish_roots: [{{ include "shoal.mount" . }}/publish]
export_roots: [{{ include "shoal.mount" . }}/export]
{{- else }}
# No other pod can reach this pod's loopback, but port-forward can.
control: 127.0.0.1:7073
{{- end }}
{{- end }}

{{- define "shoal.mount" -}}
{{- if eq .Values.peer.kind "DaemonSet" }}{{ .Values.peer.daemonSet.hostPath }}{{ else }}/var/lib/shoal{{ end }}
{{- end }}

{{/* Where the pod runs, unless the settings specify it. Pods have the node's labels from 1.35 on. */}}
{{- define "shoal.location" -}}
{{- $given := dig "location" dict .Values.peer.settings -}}
{{- $labels := "metadata.labels['topology.kubernetes.io/%s']" -}}
{{- $known := dict "NODE" "spec.nodeName" "REGION" (printf $labels "region") "ZONE" (printf $labels "zone") -}}
{{- range $key, $path := $known }}
{{- if not (hasKey $given (lower $key)) }}
- name: SHOAL__LOCATION__{{ $key }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $path }}
{{- end }}
{{- end }}
{{- end }}

{{- define "shoal.peerPod" -}}
{{- $values := .Values.peer -}}
{{- $daemon := eq $values.kind "DaemonSet" -}}
{{- $settings := include "shoal.peerSettings" . | fromYaml -}}
{{- $peer := dict "root" $ "component" "peer" "values" $values "admin" 9072 "settings" $settings -}}
metadata:
  {{- include "shoal.podMetadata" $peer | nindent 2 }}
spec:
  {{- include "shoal.pod" $peer | nindent 2 }}
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- include "shoal.podSecurity" (dict "user" (ternary $values.daemonSet.runAsUser 65532 $daemon)) | nindent 2 }}
  {{- with include "shoal.placement" $peer | trim }}
  {{- nindent 2 . }}
  {{- end }}
  {{- if not $daemon }}
  {{- with include "shoal.spread" $peer | trim }}
  {{- nindent 2 . }}
  {{- end }}
  {{- end }}
  containers:
    - name: peer
      {{- include "shoal.image" $peer | nindent 6 }}
      {{- include "shoal.containerSecurity" . | nindent 6 }}
      env:
        # For settings such as `advertise: $(POD_IP):7072`.
        - name: POD_IP
          valueFrom:
            fieldRef:
              fieldPath: status.podIP
        {{- with include "shoal.location" . | trim }}
        {{- nindent 8 . }}
        {{- end }}
        {{- include "shoal.env" $peer | nindent 8 }}
      ports:
        - name: grpc
          containerPort: 7072
        - name: admin
          containerPort: 9072
      {{- include "shoal.lifecycle" $peer | nindent 6 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - name: data
          mountPath: {{ include "shoal.mount" . }}
  volumes:
    - name: data
      {{- if $daemon }}
      hostPath:
        path: {{ $values.daemonSet.hostPath }}
        type: DirectoryOrCreate
      {{- else }}
      {{- $values.data | default (dict "emptyDir" dict) | toYaml | nindent 6 }}
      {{- end }}
{{- end }}
