{{/* The PodDisruptionBudget of a component, unless maxDisrupted is null. */}}
{{- define "shoal.disruption" -}}
{{- if not (kindIs "invalid" .values.maxDisrupted) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .component }}
  labels:
    {{- include "shoal.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.maxDisrupted }}
  # A pod that is not ready does not block a drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "shoal.selector" . | nindent 6 }}
{{- end }}
{{- end }}
