{{/* Installed by itself the chart's Service is called as the release, so that the name is known before. */}}
{{- define "kafka.fullname" -}}
{{- if .Chart.IsRoot -}}{{ .Release.Name }}{{- else -}}{{ .Release.Name }}-kafka{{- end -}}
{{- end }}

{{- define "kafka.selector" -}}
app.kubernetes.io/name: kafka
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kafka.labels" -}}
{{ include "kafka.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "kafka.check" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.nodeCIDRs) }}
{{- fail "networkPolicy.enabled needs networkPolicy.nodeCIDRs: agents come from the nodes' addresses, and would be shut out" }}
{{- end }}
{{- $old := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "kafka.fullname" .) }}
{{- if $old }}
{{- if ne (int $old.spec.replicas) (int .Values.replicas) }}
{{- fail (printf "replicas cannot change from %v to %v: the voters are chosen at installation; uninstall first" $old.spec.replicas .Values.replicas) }}
{{- end }}
{{- end }}
{{- end }}
