{{/* The settings: the user's, then the platform's, then the profile's defaults. */}}
{{- define "tulle.values" -}}
{{- $platform := .Files.Get (printf "platforms/%s.yaml" .Values.platform) | fromYaml -}}
{{- $profile := .Files.Get (printf "profiles/%s.yaml" .Values.profile) | fromYaml -}}
{{- merge (deepCopy .Values) $platform $profile | toYaml -}}
{{- end -}}

{{- define "tulle.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels that never change: selectors are made of them. Argument: the component. */}}
{{- define "tulle.selector" -}}
app.kubernetes.io/name: tulle-{{ . }}
app.kubernetes.io/part-of: tulle
{{- end -}}

{{/* Labels of an object. Argument: (list . component). */}}
{{- define "tulle.labels" -}}
{{- $top := index . 0 -}}
{{ include "tulle.selector" (index . 1) }}
app.kubernetes.io/version: {{ $top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $top.Release.Service }}
{{- end -}}

{{/* Never inside the mesh itself: these pods carry it. */}}
{{- define "tulle.podLabels" -}}
{{ include "tulle.labels" . }}
istio.io/dataplane-mode: none
{{- end -}}

{{- define "tulle.podHead" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Security context of a pod on the nodes. */}}
{{- define "tulle.nodeSecurity" -}}
seccompProfile:
  type: RuntimeDefault
{{- with .security.seLinuxType }}
seLinuxOptions:
  type: {{ . }}
{{- end }}
{{- end -}}

{{/* The way to the control plane, without cluster DNS: the Service's address from the environment
     that the kubelet makes, the name in its certificate beside it. */}}
{{- define "tulle.controlArgs" -}}
- --control=[$(TULLE_CONTROL_SERVICE_HOST)]:15012
- --control-name=tulle-control.{{ .Release.Namespace }}.svc
- --control-root=/etc/tulle/ca/root-cert.pem
- --token=/etc/tulle/token/token
{{- end -}}

{{- define "tulle.controlMounts" -}}
- name: ca
  mountPath: /etc/tulle/ca
  readOnly: true
- name: token
  mountPath: /etc/tulle/token
  readOnly: true
{{- end -}}

{{/* Argument: (list . early). The agent starts before there is a root: where its CNI plugin was left
     behind, a node takes no pod, the control plane's neither, until the agent is there. */}}
{{- define "tulle.controlVolumes" -}}
{{- $top := index . 0 -}}
- name: ca # published by the control plane; read again for each connection
  configMap:
    name: tulle-ca-root-cert
    {{- if index . 1 }}
    optional: true
    {{- end }}
- name: token # proves to the control plane who asks, and from which node
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ $top.Values.mesh.tokenAudience }}
          expirationSeconds: 3600
{{- end -}}

{{/* Annotations of what Helm makes for its uninstallation alone. Argument: the weight. */}}
{{- define "tulle.hook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
