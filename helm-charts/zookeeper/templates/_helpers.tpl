{{/* Installed by itself the chart's Service is called as the release, so that the name is known before. */}}
{{- define "zookeeper.fullname" -}}
{{- if .Chart.IsRoot -}}{{ .Release.Name }}{{- else -}}{{ .Release.Name }}-zookeeper{{- end -}}
{{- end }}

{{- define "zookeeper.selector" -}}
app.kubernetes.io/name: zookeeper
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "zookeeper.labels" -}}
{{ include "zookeeper.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What the schema cannot say. */}}
{{- define "zookeeper.check" -}}
{{- if not (has (int .Values.replicas) (list 1 3)) }}
{{- fail (printf "replicas is %v: ZooKeeper runs with 1 or 3 servers" .Values.replicas) }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.nodeCIDRs) }}
{{- fail "networkPolicy.enabled needs networkPolicy.nodeCIDRs: agents come from the nodes' addresses, and would be shut out" }}
{{- end }}
{{- $old := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "zookeeper.fullname" .) }}
{{- if $old }}
{{- if ne (int $old.spec.replicas) (int .Values.replicas) }}
{{- fail (printf "replicas cannot change from %v to %v: new servers would elect themselves without the data of the old one; uninstall first" $old.spec.replicas .Values.replicas) }}
{{- end }}
{{- end }}
{{- end }}
