// Command operator is an operator as people write them, on controller-runtime:
// a custom resource `Shop` becomes a Deployment, its status says how many pods
// are ready, a finalizer makes the Deployment go first, a webhook gives defaults
// and refuses, and a lease makes one of several instances the leader.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const finalizer = "swap.plimsoll.dev/deployment-first"

func main() {
	image := flag.String("image", "", "what a shop's pods run")
	port := flag.Int("webhook-port", 9443, "port of the webhook")
	certificates := flag.String("cert-dir", "", "tls.crt and tls.key of the webhook")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*image, *port, *certificates); err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		os.Exit(1)
	}
}

func run(image string, port int, certificates string) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypes(groupVersion, &Shop{}, &ShopList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		WebhookServer:                 webhook.NewServer(webhook.Options{Port: port, CertDir: certificates}),
		LeaderElection:                true,
		LeaderElectionID:              "shops.swap.plimsoll.dev",
		LeaderElectionNamespace:       "default",
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return err
	}
	manager.GetWebhookServer().Register("/mutate", &admission.Webhook{Handler: handler{admission.NewDecoder(scheme)}})
	err = ctrl.NewControllerManagedBy(manager).For(&Shop{}).Owns(&appsv1.Deployment{}).
		Complete(&reconciler{Client: manager.GetClient(), image: image})
	if err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

type reconciler struct {
	client.Client
	image string
}

// Reconcile makes the Deployment what the Shop says, and the Shop's status what the Deployment says.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	shop := &Shop{}
	if err := r.Get(ctx, request.NamespacedName, shop); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: shop.Name, Namespace: shop.Namespace}}
	if !shop.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.close(ctx, shop, deployment)
	}
	if controllerutil.AddFinalizer(shop, finalizer) {
		if err := r.Update(ctx, shop); err != nil {
			return ctrl.Result{}, err
		}
	}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		labels := map[string]string{"shop": shop.Name}
		grace := int64(1)
		deployment.Spec.Replicas = &shop.Spec.Clerks
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		deployment.Spec.Template.Spec.TerminationGracePeriodSeconds = &grace
		if len(deployment.Spec.Template.Spec.Containers) == 0 {
			deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "clerk", Args: []string{"pause"}}}
		}
		deployment.Spec.Template.Spec.Containers[0].Image = r.image
		return controllerutil.SetControllerReference(shop, deployment, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	if shop.Status.Ready == deployment.Status.ReadyReplicas && shop.Status.ObservedGeneration == shop.Generation {
		return ctrl.Result{}, nil
	}
	shop.Status = ShopStatus{Ready: deployment.Status.ReadyReplicas, ObservedGeneration: shop.Generation}
	return ctrl.Result{}, r.Status().Update(ctx, shop)
}

// close lets the Shop go once the Deployment is gone.
func (r *reconciler) close(ctx context.Context, shop *Shop, deployment *appsv1.Deployment) error {
	err := r.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)
	switch {
	case apierrors.IsNotFound(err):
		controllerutil.RemoveFinalizer(shop, finalizer)
		return r.Update(ctx, shop)
	case err != nil:
		return err
	case deployment.DeletionTimestamp.IsZero():
		return r.Delete(ctx, deployment, client.PropagationPolicy(metav1.DeletePropagationForeground))
	}
	return nil
}
