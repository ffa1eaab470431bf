package main

import (
	"context"
	"encoding/json"
	"net/http"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// handler gives a Shop a clerk when it has none, and refuses one with too many.
type handler struct {
	decoder admission.Decoder
}

func (h handler) Handle(_ context.Context, request admission.Request) admission.Response {
	shop := &Shop{}
	if err := h.decoder.Decode(request, shop); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if shop.Spec.Clerks > 5 {
		return admission.Denied("a shop has room for five clerks")
	}
	if shop.Spec.Clerks == 0 {
		shop.Spec.Clerks = 1
	}
	changed, err := json.Marshal(shop)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}
