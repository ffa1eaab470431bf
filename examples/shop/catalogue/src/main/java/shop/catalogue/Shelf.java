package shop.catalogue;

import java.util.List;
import java.util.UUID;

/** The goods and what is set aside of them. */
public interface Shelf {
    /** A product and how many of it. */
    record Item(String product, int quantity) {}

    /** Too few are left. */
    final class OutOfStock extends RuntimeException {
        public OutOfStock(String message) {
            super(message);
        }
    }

    List<Product> products();

    /**
     * Takes the goods out of stock for an order, all or none; again for the same order does nothing.
     *
     * @throws OutOfStock when too few are left of one of them
     */
    void reserve(UUID order, List<Item> items);

    /** Puts the goods of an order back; without a reservation does nothing. */
    void release(UUID order);
}
