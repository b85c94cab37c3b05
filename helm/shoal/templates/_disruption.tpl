{{/* A PodDisruptionBudget of a component, unless it has none. */}}
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
  # A pod that is not ready holds up no drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "shoal.selector" . | nindent 6 }}
{{- end }}
{{- end }}
