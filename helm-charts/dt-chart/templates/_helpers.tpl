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

{{/* Variables by which a reader finds the topic; it may be there before Kafka is. */}}
{{- define "dt.readerEnv" -}}
- name: KAFKA_BOOTSTRAP_SERVERS
  value: {{ include "dt.kafka" . | quote }}
- name: DT_KAFKA_TOPIC
  value: {{ .Values.kafka.topic | quote }}
{{- end }}

{{/* Secrets for a registry, where there are any. */}}
{{- define "dt.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
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

{{/* What the schema cannot say. */}}
{{- define "dt.check" -}}
{{- if or (hasPrefix "127." .Values.agent.metrics) (hasPrefix "[::1]" .Values.agent.metrics) }}
{{- fail (printf "agent.metrics %s is heard by the node itself only, and the kubelet asks at the node's address: it would start the agents anew for ever" .Values.agent.metrics) }}
{{- end }}
{{- range $name, $_ := .Values.agent.env }}
{{- if has $name (list "DT_NODE" "DT_PIN_ROOT" "DT_ADDRESS" "ZOOKEEPER_SERVERS" "KAFKA_BOOTSTRAP_SERVERS" "DT_KAFKA_TOPIC" "DT_NODE_LABELS" "DT_RACK_LABEL" "DT_RATE" "DT_WINDOW" "DT_MODE" "DT_PORT" "DT_METRICS" "DT_LOG" "DT_STATE_DIR") }}
{{- fail (printf "agent.env.%s: the chart sets this variable by a value of its own" $name) }}
{{- end }}
{{- end }}
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

{{/* What a Secret gives to those who talk to Kafka and ZooKeeper: variables, and files in one place. */}}
{{- define "dt.secretVariables" -}}
{{- with .Values.secrets.variables }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end }}

{{- define "dt.secretMount" -}}
{{- if .Values.secrets.files }}
- name: secret
  mountPath: /etc/distributed-trace/secret
  readOnly: true
{{- end }}
{{- end }}

{{- define "dt.secretVolume" -}}
{{- with .Values.secrets.files }}
- name: secret
  secret:
    secretName: {{ . }}
{{- end }}
{{- end }}
