package shop.payment;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/**
 * Takes the money: of test cards only. Remembers its newest answers by key, so that a charge that is sent again (its answer
 * was lost, its sender died) is not taken again.
 */
final class Till {
    static final int REMEMBERED = 10_000;
    static final int LIMIT_CENTS = 500_000;

    /** The answer to a charge. Approved: a reference; declined: a reason. */
    static final class Receipt {
        final String status;
        final String reference;
        final String reason;

        private Receipt(String status, String reference, String reason) {
            this.status = status;
            this.reference = reference;
            this.reason = reason;
        }

        boolean approved() {
            return reference != null;
        }
    }

    private final Map<String, Receipt> receipts = new LinkedHashMap<String, Receipt>() {
        private static final long serialVersionUID = 1;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Receipt> eldest) {
            return size() > REMEMBERED;
        }
    };

    synchronized Receipt charge(String key, int cents, String method) {
        return receipts.computeIfAbsent(key, ignored -> decide(cents, method));
    }

    private static Receipt decide(int cents, String method) {
        if (cents > LIMIT_CENTS) {
            return new Receipt("declined", null, "the amount is above the card's limit");
        }
        if (!"card-pays".equals(method)) {
            return new Receipt("declined", null, "the card was declined");
        }
        return new Receipt("approved", UUID.randomUUID().toString(), null);
    }
}
