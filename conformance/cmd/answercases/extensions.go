package main

import (
	"context"
	"time"

	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
	apiregistration "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kube-aggregator/pkg/registry/apiservice"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingadmissionpolicy"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingadmissionpolicybinding"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingwebhookconfiguration"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingadmissionpolicy"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingadmissionpolicybinding"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingwebhookconfiguration"
	"k8s.io/kubernetes/pkg/registry/certificates/certificates"
	"k8s.io/kubernetes/pkg/registry/certificates/clustertrustbundle"
	"k8s.io/kubernetes/pkg/registry/certificates/podcertificaterequest"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/flowschema"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/prioritylevelconfiguration"
	"k8s.io/kubernetes/pkg/registry/storagemigration/storagemigration"
	testingclock "k8s.io/utils/clock/testing"
)

// anybody may sign: who may is a question of admission for Plimsoll.
type anybody struct{}

func (anybody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionAllow, "", nil
}

func (anybody) ConditionsAwareAuthorize(context.Context, authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionAllow("", nil)
}

// The kinds that extend or guard the API.
func init() {
	add := func(name, group, plural string, main rest.RESTCreateUpdateStrategy, status rest.RESTUpdateStrategy) {
		kinds[name] = kind{group: group, plural: plural, create: main, update: main, status: status}
	}
	const admission, certs = "admissionregistration.k8s.io", "certificates.k8s.io"
	add("ValidatingWebhookConfiguration", admission, "validatingwebhookconfigurations", validatingwebhookconfiguration.Strategy, nil)
	add("MutatingWebhookConfiguration", admission, "mutatingwebhookconfigurations", mutatingwebhookconfiguration.Strategy, nil)
	policy := validatingadmissionpolicy.NewStrategy(nil, nil)
	add("ValidatingAdmissionPolicy", admission, "validatingadmissionpolicies", policy, validatingadmissionpolicy.NewStatusStrategy(policy))
	add("ValidatingAdmissionPolicyBinding", admission, "validatingadmissionpolicybindings", validatingadmissionpolicybinding.NewStrategy(nil, nil, nil), nil)
	add("MutatingAdmissionPolicy", admission, "mutatingadmissionpolicies", mutatingadmissionpolicy.NewStrategy(nil, nil), nil)
	add("MutatingAdmissionPolicyBinding", admission, "mutatingadmissionpolicybindings", mutatingadmissionpolicybinding.NewStrategy(nil, nil, nil), nil)
	add("CertificateSigningRequest", certs, "certificatesigningrequests", certificates.Strategy, certificates.StatusStrategy)
	approvals["CertificateSigningRequest"] = certificates.ApprovalStrategy
	add("ClusterTrustBundle", certs, "clustertrustbundles", clustertrustbundle.Strategy, nil)
	request := podcertificaterequest.NewStrategy()
	now := testingclock.NewFakePassiveClock(time.Unix(1700000000, 0))
	add("PodCertificateRequest", certs, "podcertificaterequests", request, podcertificaterequest.NewStatusStrategy(request, anybody{}, now))
	const flow = "flowcontrol.apiserver.k8s.io"
	add("FlowSchema", flow, "flowschemas", flowschema.Strategy, flowschema.StatusStrategy)
	add("PriorityLevelConfiguration", flow, "prioritylevelconfigurations", prioritylevelconfiguration.Strategy, prioritylevelconfiguration.StatusStrategy)
	add("StorageVersionMigration", "storagemigration.k8s.io", "storageversionmigrations", storagemigration.Strategy, storagemigration.StatusStrategy)
	service := apiservice.NewStrategy(apiregistration.Scheme).(rest.RESTCreateUpdateStrategy)
	add("APIService", "apiregistration.k8s.io", "apiservices", service, apiservice.NewStatusStrategy(apiregistration.Scheme).(rest.RESTUpdateStrategy))
}
