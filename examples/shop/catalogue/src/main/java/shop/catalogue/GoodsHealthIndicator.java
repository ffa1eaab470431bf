package shop.catalogue;

import org.springframework.boot.actuate.health.Health;
import org.springframework.boot.actuate.health.HealthIndicator;
import org.springframework.stereotype.Component;

/** Ready means: there are goods to show. Part of the readiness group, so an unseeded database gets no traffic yet. */
@Component
class GoodsHealthIndicator implements HealthIndicator {
    private final Shelf shelf;

    GoodsHealthIndicator(Shelf shelf) {
        this.shelf = shelf;
    }

    @Override
    public Health health() {
        int goods;
        try {
            goods = shelf.products().size();
        } catch (RuntimeException e) {
            return Health.outOfService().withDetail("reason", "the database cannot be asked").build();
        }
        return (goods > 0 ? Health.up() : Health.outOfService()).withDetail("goods", goods).build();
    }
}
