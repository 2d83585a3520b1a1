{{- define "dt.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "dt.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/* Labels that never change; called with the context and the component. */}}
{{- define "dt.selector" -}}
app.kubernetes.io/name: distributed-trace
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "dt.common" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "dt.kafka" -}}
{{- if .Values.kafka.servers -}}
{{ .Values.kafka.servers }}
{{- else -}}
{{ required "kafka.release is empty, and so is kafka.servers: say where Kafka is by one of them" .Values.kafka.release }}.{{ .Release.Namespace }}.svc:9092
{{- end -}}
{{- end }}

{{- define "dt.zookeeper" -}}
{{- if and .Values.zookeeper.enabled .Values.zookeeper.servers -}}
{{- fail "zookeeper.servers names an existing ZooKeeper, and zookeeper.enabled installs one: set zookeeper.enabled=false" -}}
{{- else if .Values.zookeeper.enabled -}}
{{ .Release.Name }}-zookeeper.{{ .Release.Namespace }}.svc:2181
{{- else -}}
{{ required "zookeeper.enabled is false and zookeeper.servers empty: agents would not find each other" .Values.zookeeper.servers }}
{{- end -}}
{{- end }}

{{- define "dt.metricsPort" -}}
{{ .Values.agent.metrics | splitList ":" | last }}
{{- end }}

{{/* Where the node's BPF file system is in the container. AppArmor's default profile lets nobody mount or write below /sys. */}}
{{- define "dt.bpffs" -}}
{{ eq .Values.securityContext.mode "privileged" | ternary "/sys/fs/bpf" "/run/dt-bpf" }}
{{- end }}

{{/* Rights of a container that handles the programs. */}}
{{- define "dt.rights" -}}
readOnlyRootFilesystem: true
{{- if eq .Values.securityContext.mode "privileged" }}
privileged: true
{{- else }}
privileged: false
allowPrivilegeEscalation: false
# Not a member of the group or another user: files on the node's BPF file system are root's.
runAsUser: 0
seccompProfile:
  type: {{ .Values.securityContext.seccomp }}
capabilities:
  drop: ["ALL"]
  # BPF loads programs, PERFMON lets them handle pointers to packets, NET_ADMIN attaches them and marks probes,
  # NET_BIND_SERVICE answers on port 862.
  add: ["BPF", "PERFMON", "NET_ADMIN", "NET_BIND_SERVICE"]
{{- end }}
{{- end }}

{{/* Variables by which all of them find the node's pins. */}}
{{- define "dt.nodeEnv" -}}
- name: DT_NODE
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: DT_PIN_ROOT
  value: {{ include "dt.bpffs" . }}/distributed-trace
{{- end }}
